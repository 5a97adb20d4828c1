package guest

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"strconv"
	"time"

	"drover"
	"drover/internal/durable"
)

// ConfigVersion is the version of the config's form. drover-init refuses a newer one than it knows.
const ConfigVersion = 1

// maxConfig bounds the config file.
const maxConfig = 2 << 20

// sector is the unit in which a disk has a size.
const sector = 512

// The disks' serials; the volumes' are VolumeSerial.
const (
	RootSerial   = "root"
	ConfigSerial = "config"
)

// VolumeSerial returns the serial of the disk of Config.Volumes[i].
func VolumeSerial(i int) string { return "volume" + strconv.Itoa(i) }

// The names of the virtio-serial ports.
const (
	AgentPort  = "drover.agent"
	LogPort    = "drover.log"
	StatusPort = "drover.status"
)

// Config is all that a guest knows of what it is to be. The host resolves it (image config, overrides, defaults) before the boot.
type Config struct {
	Version int `json:"version"`
	// Run identifies this boot; every report carries it.
	Run      string `json:"run"`
	Hostname string `json:"hostname"`
	// Argv is the main process: entrypoint and cmd in one. A name without a slash is looked up in PATH.
	Argv []string `json:"argv"`
	// Env is NAME=value; a later one wins. PATH, HOME and HOSTNAME are added when they are not there.
	Env []string `json:"env,omitempty"`
	// WorkDir is made when it does not exist. Empty means "/".
	WorkDir string `json:"work_dir,omitempty"`
	// User is "user", "user:group", "uid" or "uid:gid" as in an image's config; names are those of the image's /etc/passwd and
	// /etc/group. Empty means root.
	User string `json:"user,omitempty"`
	// Processes run beside each other in place of Argv; the machine ends when the first of them does.
	Processes []Process `json:"processes,omitempty"`
	// TTY gives the main process a terminal.
	TTY bool `json:"tty,omitempty"`
	// Swap is the size of the swap file on the root disk; 0 for none.
	Swap  drover.Bytes `json:"swap,omitempty"`
	Files []File       `json:"files,omitempty"`

	Volumes []Volume `json:"volumes,omitempty"`
	Network Network  `json:"network"`
	// DNS lists name servers for /etc/resolv.conf. Empty leaves the image's file alone.
	DNS []string `json:"dns,omitempty"`
	// Hosts adds lines to /etc/hosts, which always has localhost and the machine itself.
	Hosts  []HostName              `json:"hosts,omitempty"`
	Checks map[string]drover.Check `json:"checks,omitempty"`
	// Stop says how the main process is asked to stop when a request to stop does not. Defaults: SIGINT, 5 s.
	Stop drover.StopConfig `json:"stop"`
	// BootDeadline bounds the way to the main process: a boot that takes longer reports "failed" with the stage that it hangs
	// in, and powers off. 0 means 60 s.
	BootDeadline drover.Duration `json:"boot_deadline,omitempty"`
}

// CheckDeadline bounds a boot from the moment at which it begins to check a file system: the whole of a large one takes minutes.
const CheckDeadline = 30 * time.Minute

// Process is one of several.
type Process struct {
	// Name marks its lines in the log.
	Name string   `json:"name"`
	Argv []string `json:"argv"`
	// Env is all of its variables, as in Config.
	Env  []string `json:"env,omitempty"`
	User string   `json:"user,omitempty"`
}

// File is written into the guest before anything runs, for the machine's user.
type File struct {
	Path string `json:"path"`
	Data []byte `json:"data"`
	Mode uint32 `json:"mode"`
}

// Volume is one disk after the config disk, in order.
type Volume struct {
	// Name is for reports: the volume's ID.
	Name string `json:"name,omitempty"`
	// Path is where it is mounted; made when it does not exist.
	Path string `json:"path"`
	// MkFS allows to make a file system if the volume is blank: for a volume that was never used. Without it a blank volume is
	// refused: its data should be there and is not.
	MkFS bool `json:"mkfs,omitempty"`
}

// Network is the guest's eth0.
type Network struct {
	// Address is the private IPv6 address, without a prefix length. Empty for none.
	Address string `json:"address,omitempty"`
	// Gateway is the link-local address of the host's end. Empty means fe80::1.
	Gateway string `json:"gateway,omitempty"`
	// User is set for QEMU's user networking: 10.0.2.15/24 by 10.0.2.2, besides Address.
	User bool `json:"user,omitempty"`
	// MTU of eth0; 0 leaves it as it is.
	MTU int `json:"mtu,omitempty"`
}

// HostName is a line of /etc/hosts.
type HostName struct {
	Address string   `json:"address"`
	Names   []string `json:"names"`
}

// WriteConfig writes the config as a disk for the VM to path, durably. The file may hold secrets: only its owner can read it.
// Invalid when the config is larger than 2 MiB or has no command.
func WriteConfig(path string, cfg Config) error {
	cfg.Version = ConfigVersion
	if !cfg.runnable() {
		return drover.Errorf(drover.Invalid, "the machine has no command to run").
			WithHint("the image has no entrypoint or cmd: give one in config.init").WithField("config.init")
	}
	data, err := json.Marshal(cfg)
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot encode the guest's config: %w", err)
	}
	if len(data) > maxConfig {
		return drover.Errorf(drover.Invalid, "the guest's config has %d bytes, more than %d", len(data), maxConfig).
			WithHint("make env and files smaller").WithField("config.env")
	}
	data = append(data, make([]byte, -len(data)&(sector-1))...)
	if err := durable.WriteFile(path, data, 0o600); err != nil {
		return drover.Errorf(drover.Internal, "cannot write the guest's config: %w", err)
	}
	return nil
}

// ReadConfig reads a config disk. Invalid when there is no config of a known version on it.
func ReadConfig(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, drover.Errorf(drover.Internal, "cannot open the config disk: %w", err)
	}
	defer f.Close() // only read
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+sector))
	if err != nil {
		return Config{}, drover.Errorf(drover.Internal, "cannot read the config disk: %w", err)
	}
	return parseConfig(data)
}

// runnable reports whether there is something to run.
func (c Config) runnable() bool {
	for _, p := range c.Processes {
		if len(p.Argv) == 0 {
			return false
		}
	}
	return len(c.Argv) > 0 || len(c.Processes) > 0
}

func parseConfig(data []byte) (Config, error) {
	data = bytes.TrimRight(data, "\x00")
	var cfg Config
	if err := json.Unmarshal(data, &cfg); err != nil {
		return cfg, drover.Errorf(drover.Invalid, "the config disk holds no config: %w", err)
	}
	if cfg.Version < 1 || cfg.Version > ConfigVersion {
		return cfg, drover.Errorf(drover.Invalid, "the config has version %d; this guest knows versions 1 to %d", cfg.Version,
			ConfigVersion).WithHint("build the guest again: script/build-guest")
	}
	if !cfg.runnable() {
		return cfg, drover.Errorf(drover.Invalid, "the config has no command to run")
	}
	return cfg, nil
}
