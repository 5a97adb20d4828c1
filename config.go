package drover

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// MachineConfig is what a user asks a machine to be, with the field names of the Machines API. Fields
// that this version does not know are kept and given back as they came.
type MachineConfig struct {
	Image       string            `json:"image"`
	Guest       Guest             `json:"guest"`
	Env         map[string]string `json:"env,omitempty"`
	Init        Init              `json:"init"`
	Mounts      []Mount           `json:"mounts,omitempty"`
	Restart     Restart           `json:"restart"`
	StopConfig  StopConfig        `json:"stop_config"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Checks      map[string]Check  `json:"checks,omitempty"`
	AutoDestroy bool              `json:"auto_destroy,omitempty"`

	extra map[string]json.RawMessage
}

// Guest is the size of a machine. Defaults: 1 CPU, 256 MB.
type Guest struct {
	CPUKind  string `json:"cpu_kind,omitempty"`
	CPUs     int    `json:"cpus,omitempty"`
	MemoryMB int    `json:"memory_mb,omitempty"`
	// DiskTransport is how the machine's disks are attached: "nbd", "vhost-user-blk", or "auto" for what the host is set to. It
	// holds from the next start on. Default: auto.
	DiskTransport Transport `json:"disk_transport,omitempty"`
	// HostDedicationID names the hosts that the machine may be on: those that are dedicated to it, and no others. Default: hosts without a dedication.
	HostDedicationID string `json:"host_dedication_id,omitempty"`
}

// The kinds of CPUs.
const (
	CPUShared      = "shared"
	CPUPerformance = "performance"
)

// Init overrides what the image says is to be run.
type Init struct {
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	// Exec replaces entrypoint and cmd together.
	Exec []string `json:"exec,omitempty"`
	User string   `json:"user,omitempty"`
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

// StopConfig says how the main process is asked to stop. Defaults: SIGINT, 5 s.
type StopConfig struct {
	Signal  string   `json:"signal,omitempty"`
	Timeout Duration `json:"timeout,omitempty"`
}

// CheckType is how a health check asks.
type CheckType string

// The check types.
const (
	CheckTCP  CheckType = "tcp"
	CheckHTTP CheckType = "http"
)

// Check is one health check, made inside the guest against a port of the machine.
type Check struct {
	Type        CheckType `json:"type"`
	Port        int       `json:"port"`
	Path        string    `json:"path,omitempty"`
	Method      string    `json:"method,omitempty"`
	Interval    Duration  `json:"interval,omitempty"`
	Timeout     Duration  `json:"timeout,omitempty"`
	GracePeriod Duration  `json:"grace_period,omitempty"`
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

// plainConfig has the fields of MachineConfig without its methods.
type plainConfig MachineConfig

// UnmarshalJSON reads a config and keeps the fields it does not know.
func (c *MachineConfig) UnmarshalJSON(b []byte) error {
	var p plainConfig
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	if err := json.Unmarshal(b, &p.extra); err != nil {
		return err
	}
	known, err := json.Marshal(plainConfig{Env: map[string]string{"": ""}, Mounts: []Mount{{}},
		Metadata: map[string]string{"": ""}, Checks: map[string]Check{"": {}}, AutoDestroy: true})
	if err != nil {
		return err
	}
	var names map[string]json.RawMessage
	if err := json.Unmarshal(known, &names); err != nil {
		return err
	}
	for name := range names {
		delete(p.extra, name)
	}
	if len(p.extra) == 0 {
		p.extra = nil
	}
	*c = MachineConfig(p)
	return nil
}

// MarshalJSON writes the config with the fields that were kept.
func (c MachineConfig) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(plainConfig(c))
	if err != nil || len(c.extra) == 0 {
		return b, err
	}
	all := map[string]json.RawMessage{}
	for name, value := range c.extra {
		all[name] = value
	}
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	return json.Marshal(all)
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
