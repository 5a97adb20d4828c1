package apiv1

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"drover"
)

// Machine is one machine: what it should be and what is known of it. While its host does not answer, host_status says so
// and the rest is what was last known.
type Machine struct {
	ID     drover.MachineID    `json:"id"`
	Name   string              `json:"name"`
	App    drover.AppName      `json:"app"`
	State  drover.MachineState `json:"state"`
	Region drover.Region       `json:"region"`
	// ImageRef is what config.image was resolved to.
	ImageRef   drover.ImageRef   `json:"image_ref"`
	InstanceID drover.InstanceID `json:"instance_id"`
	// Version is the instance ID under the name that newer clients read.
	Version   drover.InstanceID `json:"version"`
	PrivateIP string            `json:"private_ip"`
	CreatedAt time.Time         `json:"created_at"`
	UpdatedAt time.Time         `json:"updated_at"`
	// Config is there while host_status is ok, IncompleteConfig in its place otherwise: what is known of it. Whoever reads a Machine finds
	// it in Config in any case.
	Config           drover.MachineConfig  `json:"config,omitzero"`
	IncompleteConfig *drover.MachineConfig `json:"incomplete_config,omitempty"`
	Events           []Event               `json:"events"`
	Checks           []drover.CheckStatus  `json:"checks"`
	HostStatus       drover.HostStatus     `json:"host_status"`
	// HostSeenAt is when the host was last heard of, while host_status is not ok: all that is told of the machine is as old.
	HostSeenAt time.Time `json:"host_seen_at,omitzero"`
	// Cordoned: it is left out of what gets traffic.
	Cordoned bool `json:"cordoned"`
	// Nonce is that of the lease which was asked for with lease_ttl.
	Nonce string `json:"nonce,omitempty"`

	// Host runs the machine, by the placement with Epoch.
	Host  drover.HostID `json:"host,omitempty"`
	Epoch drover.Epoch  `json:"epoch"`
	// Goal is what the user asked the machine to be.
	Goal     drover.Goal `json:"goal"`
	Restarts int         `json:"restarts"`
	// ExitCode is that of the main process when it last ended.
	ExitCode *int `json:"exit_code,omitempty"`
	// Reason says why the machine is failed, or what it waits for.
	Reason    string            `json:"reason,omitempty"`
	StartedAt time.Time         `json:"started_at,omitzero"`
	StoppedAt time.Time         `json:"stopped_at,omitzero"`
	Migration *MachineMigration `json:"migration,omitempty"`

	// SecretsVersion is the version of the app's secrets that the machine was last started with. SkipSecrets: it gets none.
	SecretsVersion uint64 `json:"secrets_version,omitempty"`
	SkipSecrets    bool   `json:"skip_secrets,omitempty"`
}

// UnmarshalJSON reads a machine; an incomplete config is in Config, too.
func (m *Machine) UnmarshalJSON(b []byte) error {
	type plain Machine
	if err := json.Unmarshal(b, (*plain)(m)); err != nil {
		return err
	}
	if m.IncompleteConfig != nil {
		m.Config = *m.IncompleteConfig
	}
	return nil
}

// MachineMigration is the migration that a machine is in.
type MachineMigration struct {
	ID     drover.MigrationID `json:"id"`
	Phase  drover.Phase       `json:"phase"`
	Target drover.HostID      `json:"target"`
}

// Event is one thing that happened to a machine. Lists have the newest first.
type Event struct {
	ID     string              `json:"id"`
	Type   string              `json:"type"`
	Status drover.MachineState `json:"status"`
	Source string              `json:"source"`
	// Timestamp is in milliseconds since 1970.
	Timestamp int64          `json:"timestamp"`
	Request   map[string]any `json:"request,omitempty"`
	Text      string         `json:"text,omitempty"`
}

// At returns the event's time.
func (e Event) At() time.Time { return time.UnixMilli(e.Timestamp).UTC() }

// CreateMachineRequest asks for a machine.
type CreateMachineRequest struct {
	Name string `json:"name,omitempty"`
	// Region is a region, or several with commas between them, in the order in which they are to be tried.
	Region string `json:"region,omitempty"`
	// Host pins the machine to a host.
	Host       string               `json:"host,omitempty"`
	Config     drover.MachineConfig `json:"config"`
	SkipLaunch bool                 `json:"skip_launch,omitempty"`
	// SkipServiceRegistration makes it a machine that is cordoned: it gets no traffic until it is uncordoned.
	SkipServiceRegistration bool `json:"skip_service_registration,omitempty"`
	// LeaseTTL leases the machine for so many seconds before anybody else can; the answer has the nonce.
	LeaseTTL int `json:"lease_ttl,omitempty"`
	SecretsOptions
}

// UpdateMachineRequest replaces a machine's config. Name and region may be given, but not changed.
type UpdateMachineRequest struct {
	Name   string               `json:"name,omitempty"`
	Region string               `json:"region,omitempty"`
	Config drover.MachineConfig `json:"config"`
	// CurrentVersion is the instance ID that the config was read at.
	CurrentVersion string `json:"current_version,omitempty"`
	SkipLaunch     bool   `json:"skip_launch,omitempty"`
	// SkipServiceRegistration cordons the machine, too. Without it the machine stays what it is.
	SkipServiceRegistration bool `json:"skip_service_registration,omitempty"`
	// LeaseTTL leases the machine afterwards, or prolongs the lease with the nonce of the request, for so many seconds.
	LeaseTTL int `json:"lease_ttl,omitempty"`
	SecretsOptions
}

// SecretsOptions says how a machine is given the secrets of its app.
type SecretsOptions struct {
	// MinSecretsVersion is the version that the machine needs at least; one that there is not is refused. Default: the newest.
	MinSecretsVersion uint64 `json:"min_secrets_version,omitempty"`
	// SkipSecrets: it is given none.
	SkipSecrets bool `json:"skip_secrets,omitempty"`
}

// StartResult is the answer of a start.
type StartResult struct {
	PreviousState drover.MachineState `json:"previous_state"`
}

// StopRequest overrides the config's stop signal and timeout; a zero timeout overrides nothing.
type StopRequest struct {
	Signal  Signal          `json:"signal,omitempty"`
	Timeout drover.Duration `json:"timeout,omitempty"`
}

// SignalRequest sends the main process a signal.
type SignalRequest struct {
	Signal Signal `json:"signal"`
}

// Signal is a signal as clients write it: a name ("SIGHUP", "HUP") or a number, kept as text.
type Signal string

// UnmarshalJSON reads a name or a number.
func (s *Signal) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	var text string
	if json.Unmarshal(b, &text) == nil {
		*s = Signal(text)
		return nil
	}
	var number int
	if json.Unmarshal(b, &number) != nil {
		return errors.New("expected a signal's name such as \"SIGHUP\", or its number")
	}
	*s = Signal(fmt.Sprint(number))
	return nil
}

// EncodingBase64 is the ExecRequest.Encoding for commands whose input or output is not text.
const EncodingBase64 = "base64"

// ExecRequest runs a command beside the machine's main process.
type ExecRequest struct {
	// Command is the command with its arguments. Cmd is the older form, one string that is split at spaces outside quotes.
	Command []string `json:"command,omitempty"`
	Cmd     string   `json:"cmd,omitempty"`
	// Timeout is in seconds; 0 means 60.
	Timeout int    `json:"timeout,omitempty"`
	Stdin   string `json:"stdin,omitempty"`
	// Encoding is empty for text, or EncodingBase64: then stdin, stdout and stderr are base64.
	Encoding string `json:"encoding,omitempty"`
}

// ExecResult is what the command left.
type ExecResult struct {
	ExitCode   int    `json:"exit_code"`
	ExitSignal int    `json:"exit_signal"`
	Stdout     string `json:"stdout"`
	Stderr     string `json:"stderr"`
	// Truncated says that output beyond 1 MiB of a stream was cut.
	Truncated bool `json:"truncated,omitempty"`
}

// Logs is a piece of a machine's log, and the offset to go on from.
type Logs struct {
	Lines []drover.LogLine `json:"lines"`
	Next  int64            `json:"next"`
	// Host is where the lines were written. Offsets are those of the log there: each host that a machine was on has one of its own.
	Host drover.HostID `json:"host,omitempty"`
}
