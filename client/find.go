package client

import (
	"context"
	"encoding/hex"

	"drover"
	"drover/apiv1"
)

// FindMachine looks for a machine by its ID, or else by its name, in every app that the token may see, or in one if app is not empty.
// NotFound when there is none, Conflict when a name fits more than one.
func (c *Client) FindMachine(ctx context.Context, app drover.AppName, idOrName string) (apiv1.Machine, error) {
	apps, err := c.appsToSearch(ctx, app)
	if err != nil {
		return apiv1.Machine{}, err
	}
	if _, err := hex.DecodeString(idOrName); err == nil && len(idOrName) == 14 {
		for _, app := range apps {
			m, err := c.Machine(ctx, app, drover.MachineID(idOrName))
			if !drover.Is(err, drover.NotFound) {
				return m, err
			}
		}
	}
	var named []apiv1.Machine
	for _, name := range apps {
		machines, err := c.Machines(ctx, name)
		if err != nil && (app != "" || !drover.Is(err, drover.NotFound)) { // an app may go while this looks at all of them
			return apiv1.Machine{}, err
		}
		for _, m := range machines {
			if m.Name == idOrName {
				named = append(named, m)
			}
		}
	}
	switch len(named) {
	case 1:
		return named[0], nil
	case 0:
		return apiv1.Machine{}, drover.Errorf(drover.NotFound, "no machine has the ID or the name %q", idOrName).
			WithHint("'drover machine list' shows the machines that there are")
	}
	return apiv1.Machine{}, drover.Errorf(drover.Conflict, "%d machines have the name %q (%s in app %s, %s in app %s)", len(named), idOrName,
		named[0].ID, named[0].App, named[1].ID, named[1].App).WithHint("name the machine by its ID")
}

// FindVolume looks for a volume by its ID, or else by its name, as FindMachine does. What was found has all that is known of it.
func (c *Client) FindVolume(ctx context.Context, app drover.AppName, idOrName string) (apiv1.Volume, error) {
	v, err := c.findVolume(ctx, app, idOrName, c.Volumes, "volume", "drover volume list")
	if err != nil {
		return v, err
	}
	return c.Volume(ctx, v.App, v.ID)
}

// FindDestroyedVolume is FindVolume for those that were destroyed and can be brought back.
func (c *Client) FindDestroyedVolume(ctx context.Context, app drover.AppName, idOrName string) (apiv1.Volume, error) {
	return c.findVolume(ctx, app, idOrName, c.DestroyedVolumes, "destroyed volume", "drover volume list --deleted")
}

func (c *Client) findVolume(ctx context.Context, app drover.AppName, idOrName string, list func(context.Context, drover.AppName) ([]apiv1.Volume, error),
	what, hint string) (apiv1.Volume, error) {
	apps, err := c.appsToSearch(ctx, app)
	if err != nil {
		return apiv1.Volume{}, err
	}
	var named []apiv1.Volume
	for _, name := range apps {
		volumes, err := list(ctx, name)
		if err != nil && (app != "" || !drover.Is(err, drover.NotFound)) {
			return apiv1.Volume{}, err
		}
		for _, v := range volumes {
			if string(v.ID) == idOrName {
				return v, nil
			}
			if v.Name == idOrName {
				named = append(named, v)
			}
		}
	}
	switch len(named) {
	case 1:
		return named[0], nil
	case 0:
		return apiv1.Volume{}, drover.Errorf(drover.NotFound, "no %s has the ID or the name %q", what, idOrName).
			WithHint("'%s' shows the %ss that there are", hint, what)
	}
	return apiv1.Volume{}, drover.Errorf(drover.Conflict, "%d volumes have the name %q (%s in app %s, %s in app %s)", len(named), idOrName,
		named[0].ID, named[0].App, named[1].ID, named[1].App).WithHint("name the volume by its ID")
}

// FindSnapshot looks for a snapshot by its ID, in every app that the token may see, or in one if app is not empty.
func (c *Client) FindSnapshot(ctx context.Context, app drover.AppName, id string) (apiv1.Snapshot, error) {
	apps, err := c.appsToSearch(ctx, app)
	if err != nil {
		return apiv1.Snapshot{}, err
	}
	for _, name := range apps {
		snapshots, err := c.Snapshots(ctx, name, "")
		if err != nil && (app != "" || !drover.Is(err, drover.NotFound)) {
			return apiv1.Snapshot{}, err
		}
		for _, s := range snapshots {
			if string(s.ID) == id {
				return s, nil
			}
		}
	}
	return apiv1.Snapshot{}, drover.Errorf(drover.NotFound, "no snapshot has the ID %q", id).
		WithHint("'drover volume snapshot list' shows the snapshots that there are")
}

func (c *Client) appsToSearch(ctx context.Context, app drover.AppName) ([]drover.AppName, error) {
	if app != "" {
		return []drover.AppName{app}, nil
	}
	list, err := c.Apps(ctx, "")
	if err != nil {
		return nil, err
	}
	var apps []drover.AppName
	for _, a := range list {
		apps = append(apps, a.Name)
	}
	return apps, nil
}
