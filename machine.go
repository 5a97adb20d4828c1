package drover

import "time"

// Goal is what a user wants a machine to be.
type Goal string

// The goals.
const (
	GoalStarted   Goal = "started"
	GoalStopped   Goal = "stopped"
	GoalSuspended Goal = "suspended"
	GoalDestroyed Goal = "destroyed"
)

// MachineState is what a machine is now, in the words of the Machines API.
type MachineState string

// The states. Each comment says what exists on the host, and what a restart of the agent does.
const (
	// StateCreated: a record and reserved memory; layers are being made or are there. The agent goes on.
	StateCreated MachineState = "created"
	// StateStarting: layers are open for writing, the VM is being launched or boots. The agent re-attaches.
	StateStarting MachineState = "starting"
	// StateStarted: the VM runs and its main process was started. The agent re-attaches, the guest notices nothing.
	StateStarted MachineState = "started"
	// StateStopping: the main process was sent its stop signal. The agent goes on waiting, then kills.
	StateStopping MachineState = "stopping"
	// StateSuspending: the VM stands still while its memory is written to a disk of its own. The agent begins anew with the writing, or, once
	// all is written, ends the VM.
	StateSuspending MachineState = "suspending"
	// StateSuspended: no VM; the layers are closed and kept, and one more that holds the memory. The agent leaves it so.
	StateSuspended MachineState = "suspended"
	// StateStopped: no VM; the layers are closed and kept.
	StateStopped MachineState = "stopped"
	// StateFailed: the machine could not be started or its retries are used up; its last event says why.
	StateFailed MachineState = "failed"
	// StateDestroying: what is left of the machine is being removed.
	StateDestroying MachineState = "destroying"
	// StateDestroyed: nothing is left but the record, which is kept for a while.
	StateDestroyed MachineState = "destroyed"
)

// ImageRef is an image, resolved once when a machine is created or updated so that it never changes by itself.
type ImageRef struct {
	Registry   string `json:"registry,omitempty"`
	Repository string `json:"repository,omitempty"`
	Tag        string `json:"tag,omitempty"`
	// Digest is "sha256:" and 64 hexadecimal digits, of the image's manifest.
	Digest string            `json:"digest"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Machine is the desired state of one machine. The control side writes it; nobody else does.
type Machine struct {
	ID     MachineID     `json:"id"`
	App    AppName       `json:"app"`
	Name   string        `json:"name"`
	Region Region        `json:"region"`
	Config MachineConfig `json:"config"`
	Image  ImageRef      `json:"image_ref"`
	// Instance changes with each update of the config.
	Instance InstanceID `json:"instance_id"`
	// Address is the private IPv6 address; it is made of the network's and the machine's own number, never of a host's.
	Address string `json:"private_ip"`
	Goal    Goal   `json:"goal"`
	// GoalBefore is what a machine that ran goes back to should its app, which was destroyed, be brought back.
	GoalBefore Goal `json:"goal_before,omitempty"`
	// Stop overrides the config's stop signal and timeout for the stop that Goal asks for, field by field.
	Stop StopConfig `json:"stop"`
	// Run counts the starts that users asked for: a larger one than the host has run means "start again".
	Run uint64 `json:"run"`
	// SecretsVersion is the version of the app's secrets that the next start needs at least; 0 when it needs none. SkipSecrets: it gets none.
	SecretsVersion uint64 `json:"secrets_version,omitempty"`
	SkipSecrets    bool   `json:"skip_secrets,omitempty"`
	// Resume: the start that made Run what it is was that of a suspended machine, which goes on with its memory. A VM that still runs is what
	// was asked for, then.
	Resume bool `json:"resume,omitempty"`
	// Suspend counts how often users asked to suspend the machine: a larger one than the host has tried means "try again".
	Suspend uint64 `json:"suspend,omitempty"`
	// Cordoned keeps the machine out of what gets traffic from outside; it runs on.
	Cordoned bool `json:"cordoned,omitempty"`
	// ScheduledAt is the newest time of the config's schedule that was dealt with. StandsIn says for which machine, and which fence of its
	// host, this one was started in its place.
	ScheduledAt time.Time `json:"scheduled_at,omitzero"`
	StandsIn    string    `json:"stands_in,omitempty"`
	// Last is what its host last said of a machine that is destroyed, for as long as the record is kept: how it ended is in its events.
	Last      *MachineStatus `json:"last,omitempty"`
	CreatedAt time.Time      `json:"created_at"`
	UpdatedAt time.Time      `json:"updated_at"`
	// ConfiguredAt is when the machine got the config of Instance; zero is CreatedAt.
	ConfiguredAt time.Time `json:"configured_at,omitzero"`
}

// Placement says which host may run a machine. Its epoch is the revision of its record in the store
// (see Epoch) and is filled in by whoever reads it there. To change it by compare-and-set is the one way to
// move a machine: the commit point of a migration.
type Placement struct {
	Machine MachineID `json:"machine"`
	Host    HostID    `json:"host"`
	// Migration is the one that brought the machine here; empty for the first placement.
	Migration MigrationID `json:"migration,omitempty"`
	// Recovery is the one that brought it here without the consent of the host before.
	Recovery RecoveryID `json:"recovery,omitempty"`
	Epoch    Epoch      `json:"-"`
}

// MachineStatus is the observed state of one machine. The agent of the host that the placement names writes it; a status
// of an older epoch never replaces one of a newer.
type MachineStatus struct {
	Machine  MachineID    `json:"machine"`
	Host     HostID       `json:"host"`
	Epoch    Epoch        `json:"epoch"`
	State    MachineState `json:"state"`
	Instance InstanceID   `json:"instance_id"`
	// Run is the Machine.Run that the state belongs to.
	Run uint64 `json:"run"`
	// SecretsVersion is the version of the app's secrets that the machine was last started with.
	SecretsVersion uint64 `json:"secrets_version,omitempty"`
	// Restarts counts the starts that the restart policy made since the last one a user asked for.
	Restarts int `json:"restarts"`
	// ExitCode is that of the main process when it last ended; nil before. A signal N is 128+N.
	ExitCode *int `json:"exit_code,omitempty"`
	// Reason says in words why the machine is failed, or what it waits for.
	Reason string `json:"reason,omitempty"`
	// StartedAt is when the main process of the present run started, StoppedAt when the last VM ended.
	StartedAt time.Time     `json:"started_at,omitzero"`
	StoppedAt time.Time     `json:"stopped_at,omitzero"`
	Checks    []CheckStatus `json:"checks,omitempty"`
	// Events has the newest last, MaxEvents at most.
	Events    []Event   `json:"events,omitempty"`
	UpdatedAt time.Time `json:"updated_at"`
}

// MaxEvents bounds MachineStatus.Events.
const MaxEvents = 50

// CheckStatus is the newest result of one health check: "passing", or "critical", also while it was not asked yet; "warning" is of
// older guests, for one that was not asked yet.
type CheckStatus struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Output string `json:"output"`
	// Role is what the machine is to its group, if what answered the check said so: the header RoleHeader of its answer.
	Role      MoveRole  `json:"role,omitempty"`
	UpdatedAt time.Time `json:"updated_at"`
}

// Event is one thing that happened to a machine.
type Event struct {
	// ID is unique; an event that is told twice has the same ID.
	ID string `json:"id"`
	// Type is what happened: launch (created, or given another config and to be started), start (the main process runs), start-failed, stop, suspend,
	// exit, restart, update, migrate, recover, destroy, oom, boot-timeout.
	Type string `json:"type"`
	// Status is the machine's state after it.
	Status MachineState `json:"status"`
	// Source says who did it: user, drover (the restart policy, a migration) or guest.
	Source string `json:"source"`
	Text   string `json:"text,omitempty"`
	// Request is more about it. That of an exit has exit_event and restart_count, as clients of the Machines API read them.
	Request map[string]any `json:"request,omitempty"`
	At      time.Time      `json:"at"`
	// Run and Instance are the MachineStatus.Run and MachineStatus.Instance that it happened in.
	Run      uint64     `json:"run,omitempty"`
	Instance InstanceID `json:"instance_id,omitempty"`
}

// App is a named group of machines of one organisation.
type App struct {
	Name         AppName `json:"name"`
	Organization string  `json:"organization"`
	Network      string  `json:"network,omitempty"`
	// Metadata holds labels that count for every machine of the app which does not have them itself.
	Metadata map[string]string `json:"metadata,omitempty"`
	// Recovery says whether its machines are started elsewhere without asking, once their host is fenced. Empty is ask.
	Recovery RecoveryPolicy `json:"recovery,omitempty"`
	// Destroyed is set from the moment in which the app is destroyed until its record is gone or it is brought back.
	Destroyed *AppDestroyed `json:"destroyed,omitempty"`
	CreatedAt time.Time     `json:"created_at"`
}

// AppDestroyed says since when an app is destroyed, and how far that is.
type AppDestroyed struct {
	At time.Time `json:"at"`
	// By is who asked for it.
	By string `json:"by,omitempty"`
	// WipeAt is until when it can be brought back. Wiping: it is being cleared away, and cannot.
	WipeAt time.Time `json:"wipe_at"`
	Wiping bool      `json:"wiping,omitempty"`
}

// RecoveryPolicy is what an app agreed to for the time after the death of a host.
type RecoveryPolicy string

// The policies.
const (
	// RecoverAsk: an operator begins a recovery.
	RecoverAsk RecoveryPolicy = "ask"
	// RecoverAutomatic: a recovery begins by itself once the fence is certain.
	RecoverAutomatic RecoveryPolicy = "automatic"
)
