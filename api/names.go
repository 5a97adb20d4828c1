package api

import (
	"fmt"
	"time"

	"drover"
)

// The forms of identities (see the root package's ids.go). What does not have the form cannot exist, and is never looked up.
func validVolumeID(s string) bool    { return hexDigits(s, "vol_", 16) }
func validMigrationID(s string) bool { return hexDigits(s, "mig_", 16) }
func validSnapshotID(s string) bool  { return hexDigits(s, "vs_", 16) }

func hexDigits(s, prefix string, digits int) bool {
	if len(s) != len(prefix)+digits || s[:len(prefix)] != prefix {
		return false
	}
	for _, c := range s[len(prefix):] {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// findApp returns the app that the request's path names. Another organisation's app is as unknown as one that does not exist.
func (h *handler) findApp(c *call, name string) (drover.App, error) {
	notFound := drover.Errorf(drover.NotFound, "app not found: %q", name).WithHint("'drover app list' shows the apps that this token may see")
	if !drover.ValidName(name) {
		return drover.App{}, notFound
	}
	app, err := h.backend.AnyApp(c.ctx(), drover.AppName(name))
	switch {
	case drover.Is(err, drover.NotFound), err == nil && !mayUse(c, app):
		return drover.App{}, notFound
	case err != nil, app.Destroyed == nil, c.route.destroyed:
		return app, err
	case app.Destroyed.Wiping:
		return drover.App{}, drover.Errorf(drover.NotFound, "app not found: %q was destroyed, and is being wiped", name)
	}
	return drover.App{}, drover.Errorf(drover.NotFound, "app not found: %q was destroyed, and is kept until %s", name, app.Destroyed.WipeAt.Format(time.RFC3339)).
		WithHint("bring it back: drover app undelete %s", name)
}

func mayUse(c *call, app drover.App) bool {
	return MaySee(c.principal, app)
}

// machineID returns the machine that the path names.
func machineID(c *call) (drover.MachineID, error) {
	id := c.r.PathValue("machine_id")
	if !drover.ValidMachineID(id) {
		return "", drover.Errorf(drover.NotFound, "machine not found: %q is not a machine ID, which has 14 digits from 0 to f", id)
	}
	return drover.MachineID(id), nil
}

// machineGone gives NotFound the words that clients of the Machines API look for.
func machineGone(c *call, err error) error {
	if !drover.Is(err, drover.NotFound) {
		return err
	}
	return drover.Errorf(drover.NotFound, "machine not found: app %q has no machine %q", c.app.Name, c.r.PathValue("machine_id")).
		WithHint("'drover machine list' shows the machines that there are")
}

func volumeID(c *call) (drover.VolumeID, error) {
	id := c.r.PathValue("volume_id")
	if !validVolumeID(id) {
		return "", drover.Errorf(drover.NotFound, "volume not found: %q is not a volume ID, which is \"vol_\" and 16 digits from 0 to f", id)
	}
	return drover.VolumeID(id), nil
}

func snapshotID(c *call) (drover.SnapshotID, error) {
	id := c.r.PathValue("snapshot_id")
	if !validSnapshotID(id) {
		return "", drover.Errorf(drover.NotFound, "snapshot not found: %q is not a snapshot ID, which is \"vs_\" and 16 digits from 0 to f", id)
	}
	return drover.SnapshotID(id), nil
}

func hostID(c *call) (drover.HostID, error) {
	id := c.r.PathValue("host_id")
	if !drover.ValidName(id) {
		return "", drover.Errorf(drover.NotFound, "host not found: %q", id)
	}
	return drover.HostID(id), nil
}

func migrationID(c *call) (drover.MigrationID, error) {
	id := c.r.PathValue("migration_id")
	if !validMigrationID(id) {
		return "", drover.Errorf(drover.NotFound, "migration not found: %q is not a migration ID, which is \"mig_\" and 16 digits from 0 to f", id)
	}
	return drover.MigrationID(id), nil
}

// badField makes the error of a request's field; the text goes on after the field's name.
func badField(field, format string, args ...any) error {
	return drover.Errorf(drover.Invalid, "%s %s", field, fmt.Sprintf(format, args...)).WithField(field)
}

// needName checks a name that a body or a query gives. An empty one is valid where it may be left out.
func needName(field, value string, optional bool) error {
	if value == "" && optional {
		return nil
	}
	if value == "" {
		return drover.Errorf(drover.Invalid, "%s is missing", field).WithField(field)
	}
	if !drover.ValidName(value) {
		return drover.Errorf(drover.Invalid, "%s is %q; expected 1 to 63 lower-case letters, digits and hyphens, not starting or ending with a hyphen",
			field, value).WithField(field)
	}
	return nil
}

// needInstance checks an instance ID that a client gives back.
func needInstance(field, value string) error {
	const most = 64
	valid := len(value) <= most
	for _, c := range value {
		valid = valid && (c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z')
	}
	if !valid {
		return drover.Errorf(drover.Invalid, "%s is %q; expected the instance ID of a machine", field, value).WithField(field)
	}
	return nil
}
