package dev

import (
	"os"
	"path/filepath"

	"drover"
)

// EnvDir names the fleet's directory; every process of a fleet has it in its environment.
const EnvDir = "DROVER_DEV_DIR"

// envMark is how a process of a fleet is recognised: its value is the fleet's directory. It is apart from EnvDir, which a person may
// have set in a shell.
const envMark = "DROVER_DEV_FLEET"

// DefaultDir is the fleet's directory when none is given: $DROVER_DEV_DIR, or .drover/dev in the home directory.
func DefaultDir() (string, error) {
	if dir := os.Getenv(EnvDir); dir != "" {
		return filepath.Abs(dir)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", drover.Errorf(drover.Invalid, "cannot tell where the fleet's directory is: %w", err).WithHint("give it with --dir")
	}
	return filepath.Join(home, ".drover", "dev"), nil
}

// paths knows where everything is in a fleet's directory.
type paths string

func (p paths) dir() string    { return string(p) }
func (p paths) layout() string { return filepath.Join(string(p), "fleet.json") }
func (p paths) lock() string   { return filepath.Join(string(p), "lock") }
func (p paths) api() string    { return filepath.Join(string(p), "api.json") }
func (p paths) ca() string     { return filepath.Join(string(p), "ca") }
func (p paths) hosts() string  { return filepath.Join(string(p), "hosts") }

const (
	rackSocketName = "rack.sock"
	rackLogName    = "rack.log"
	hostSocketName = "ctl.sock"
)

func (p paths) rackLog() string { return filepath.Join(string(p), rackLogName) }

func (p paths) host(id drover.HostID) string       { return filepath.Join(p.hosts(), string(id)) }
func (p paths) hostConfig(id drover.HostID) string { return filepath.Join(p.host(id), "host.json") }
func (p paths) data(id drover.HostID) string       { return filepath.Join(p.host(id), "data") }
func (p paths) diskImage(id drover.HostID) string  { return filepath.Join(p.host(id), "disk.img") }
func (p paths) ballast(id drover.HostID) string    { return filepath.Join(p.data(id), "ballast") }
func (p paths) tls(id drover.HostID) string        { return filepath.Join(p.host(id), "tls") }
func (p paths) faults(id drover.HostID) string     { return filepath.Join(p.host(id), "faults") }
func (p paths) log(id drover.HostID, service string) string {
	return filepath.Join(p.logs(id), service+".log")
}
func (p paths) logs(id drover.HostID) string { return filepath.Join(p.host(id), "log") }

// run is the host's run directory: in ModeNamespaces a path that exists only in the host's mount namespace.
func (p paths) run(id drover.HostID, mode Mode) string {
	if mode == ModeNamespaces {
		return "/run/drover"
	}
	return filepath.Join(p.host(id), "run")
}

// powerSocketName is the socket in a host's run directory whose caller cuts the host's power (fault.EnvPowerSocket).
const powerSocketName = "power.sock"

// fleetMembers are the processes of the fleet, hostMembers those of one host in ModeLoopback.
func (p paths) fleetMembers() membership {
	return membership{variable: envMark + "=" + p.dir(), dir: p.hosts()}
}

func (p paths) hostMembers(id drover.HostID) membership {
	return membership{variable: powerEnv(filepath.Join(p.run(id, ModeLoopback), powerSocketName)), dir: p.host(id)}
}
