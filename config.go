package drover

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// MachineConfig is what a user asks a machine to be, with the field names of the Machines API. Fields that this version does not know are kept
// and given back as they came, at every depth.
type MachineConfig struct {
	Image    string            `json:"image"`
	Guest    Guest             `json:"guest"`
	Env      map[string]string `json:"env,omitempty"`
	Init     Init              `json:"init"`
	Files    []File            `json:"files,omitempty"`
	Mounts   []Mount           `json:"mounts,omitempty"`
	Restart  Restart           `json:"restart"`
	Metadata map[string]string `json:"metadata,omitempty"`
	// Processes run side by side in place of the one that Init describes. The machine ends when the first of them does.
	Processes  []MachineProcess `json:"processes,omitempty"`
	StopConfig StopConfig       `json:"stop_config"`
	Services   []Service        `json:"services,omitempty"`
	Checks     map[string]Check `json:"checks,omitempty"`
	// AutoDestroy: the machine is destroyed when its main process has ended for good, or it was stopped.
	AutoDestroy bool `json:"auto_destroy,omitempty"`
	// Schedule is how often the control side starts the machine by itself.
	Schedule Schedule `json:"schedule,omitempty"`
	// Standbys are the machines that this one stands in for: it is started when the host of one of them is fenced.
	Standbys []MachineID `json:"standbys,omitempty"`

	extra *kept
}

// Guest is the size of a machine. Defaults: 1 CPU, 256 MB.
type Guest struct {
	CPUKind  string `json:"cpu_kind,omitempty"`
	CPUs     int    `json:"cpus,omitempty"`
	MemoryMB int    `json:"memory_mb,omitempty"`
	GPUs     int    `json:"gpus,omitempty"`
	// KernelArgs are words for the kernel's command line, after those of Init.
	KernelArgs []string `json:"kernel_args,omitempty"`
	// DiskTransport is how the machine's disks are attached: "nbd", "vhost-user-blk", or "auto" for what the host is set to. It
	// holds from the next start on. Default: auto.
	DiskTransport Transport `json:"disk_transport,omitempty"`
	// HostDedicationID names the hosts that the machine may be on: those that are dedicated to it, and no others. Default: hosts without a dedication.
	HostDedicationID string `json:"host_dedication_id,omitempty"`
}

// MinMemoryMB is the least memory of a machine: with less the guest's kernel does not get as far as its first program.
const MinMemoryMB = 96

// The kinds of CPUs.
const (
	CPUShared      = "shared"
	CPUPerformance = "performance"
)

// Init overrides what the image says is to be run.
// Init overrides what the image says is to be run, and how.
type Init struct {
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	// Exec replaces entrypoint and cmd together.
	Exec []string `json:"exec,omitempty"`
	User string   `json:"user,omitempty"`
	// TTY gives the main process a terminal.
	TTY bool `json:"tty,omitempty"`
	// SwapSizeMB is the size of a swap file on the root disk; 0 for none.
	SwapSizeMB int `json:"swap_size_mb,omitempty"`
	// KernelArgs are words for the kernel's command line.
	KernelArgs []string `json:"kernel_args,omitempty"`
}

// File is written into the machine at each start, before anything runs: either RawValue or the value of a secret, both in base64.
type File struct {
	GuestPath  string `json:"guest_path"`
	RawValue   string `json:"raw_value,omitempty"`
	SecretName string `json:"secret_name,omitempty"`
	// Mode is as chmod(2) takes it. Default: 0644.
	Mode uint32 `json:"mode,omitempty"`
}

// MachineProcess is one of several that run in a machine. What it does not say is as for the machine.
type MachineProcess struct {
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	Exec       []string          `json:"exec,omitempty"`
	User       string            `json:"user,omitempty"`
	Env        map[string]string `json:"env,omitempty"`
	// EnvFrom gives variables the value of a field of the machine.
	EnvFrom []EnvFrom `json:"env_from,omitempty"`
	// Secrets are the only ones that the process sees, when there are any; IgnoreAppSecrets: it sees no others even when there are none.
	Secrets          []ProcessSecret `json:"secrets,omitempty"`
	IgnoreAppSecrets bool            `json:"ignore_app_secrets,omitempty"`
}

// EnvFrom gives a variable the value of a field: id, version, app_name, private_ip, region or image.
type EnvFrom struct {
	EnvVar   string `json:"env_var"`
	FieldRef string `json:"field_ref"`
}

// ProcessSecret gives a variable the value of a secret, which is that of the variable's own name when Name is empty.
type ProcessSecret struct {
	EnvVar string `json:"env_var"`
	Name   string `json:"name,omitempty"`
}

// Mount puts a volume on a path of the machine.
type Mount struct {
	Volume VolumeID `json:"volume"`
	Path   string   `json:"path"`
	Name   string   `json:"name,omitempty"`
}

// RestartPolicy says what happens when the machine's main process ends by itself.
type RestartPolicy string

// The restart policies.
const (
	RestartNo        RestartPolicy = "no"
	RestartOnFailure RestartPolicy = "on-failure"
	RestartAlways    RestartPolicy = "always"
)

// Restart is the restart policy. Default: on-failure, 10 tries in a row.
type Restart struct {
	Policy     RestartPolicy `json:"policy,omitempty"`
	MaxRetries int           `json:"max_retries,omitempty"`
}

// Schedule is how often a machine is started by itself.
type Schedule string

// The schedules.
const (
	Hourly  Schedule = "hourly"
	Daily   Schedule = "daily"
	Weekly  Schedule = "weekly"
	Monthly Schedule = "monthly"
)

// StopConfig says how the main process is asked to stop. Defaults: SIGINT, 5 s.
type StopConfig struct {
	Signal  string   `json:"signal,omitempty"`
	Timeout Duration `json:"timeout,omitempty"`
}

// Duration is a time.Duration that reads and writes as text such as "5s"; a bare number is nanoseconds.
type Duration time.Duration

// MarshalJSON writes the duration as text.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON reads text such as "1m30s", a number of nanoseconds, or {"Duration": …} as older clients send, which the
// published Machines API calls {"time.Duration": …}. Null changes nothing, as everywhere in JSON.
func (d *Duration) UnmarshalJSON(b []byte) error {
	if bytes.Equal(bytes.TrimSpace(b), []byte("null")) {
		return nil
	}
	var text string
	if json.Unmarshal(b, &text) == nil {
		v, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is not a duration such as \"5s\"", text)
		}
		*d = Duration(v)
		return nil
	}
	var object struct {
		Duration json.RawMessage
		Long     json.RawMessage `json:"time.Duration"`
	}
	if json.Unmarshal(b, &object) == nil && (object.Duration != nil || object.Long != nil) {
		if object.Duration == nil {
			object.Duration = object.Long
		}
		return d.UnmarshalJSON(object.Duration)
	}
	var n int64
	if err := json.Unmarshal(b, &n); err != nil {
		return fmt.Errorf("%s is not a duration such as \"5s\"", bytes.TrimSpace(b))
	}
	*d = Duration(n)
	return nil
}

// WithDefaults returns the config with every default filled in.
func (c MachineConfig) WithDefaults() MachineConfig {
	if c.Guest.CPUs == 0 {
		c.Guest.CPUs = 1
	}
	if c.Guest.MemoryMB == 0 {
		c.Guest.MemoryMB = 256
	}
	if c.Guest.CPUKind == "" {
		c.Guest.CPUKind = "shared"
	}
	if c.Restart.Policy == "" {
		c.Restart.Policy = RestartOnFailure
	}
	if c.Restart.MaxRetries == 0 {
		c.Restart.MaxRetries = 10
	}
	if c.StopConfig.Signal == "" {
		c.StopConfig.Signal = "SIGINT"
	}
	if c.StopConfig.Timeout == 0 {
		c.StopConfig.Timeout = Duration(5 * time.Second)
	}
	return c
}
