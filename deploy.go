package drover

import (
	"fmt"
	"time"
)

// LabelDeploy is the key of a machine's metadata that names the deploy which gave it its config.
const LabelDeploy = "drover_deploy"

// ReleaseGroup is the process group of a machine that runs a command before the machines of a deploy are changed.
const ReleaseGroup = "fly_app_release_command"

// LabelProcessGroup is the key of a machine's metadata that names its process group.
const LabelProcessGroup = "fly_process_group"

// Deploy changes the machines of an app one after another, each only when those before it are well. It is a durable record: whoever drives it may
// die at any moment, and another goes on.
//
//	running --> done | failed
//	   |
//	   v
//	aborting --> aborted
type Deploy struct {
	ID    DeployID `json:"id"`
	App   AppName  `json:"app"`
	Actor string   `json:"actor,omitempty"`
	// Text says in words what it brings, such as the image.
	Text    string        `json:"text,omitempty"`
	Options DeployOptions `json:"options"`
	State   DeployState   `json:"state"`
	Items   []DeployItem  `json:"items"`
	// Waits says what it waits for. Problem says why it failed: the first machine that did.
	Waits     string    `json:"waits,omitempty"`
	Problem   *Error    `json:"problem,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
}

// DeployState is where a deploy is.
type DeployState string

// The states.
const (
	DeployRunning  DeployState = "running"
	DeployAborting DeployState = "aborting"
	DeployDone     DeployState = "done"
	DeployFailed   DeployState = "failed"
	DeployAborted  DeployState = "aborted"
)

// Ended tells whether nothing more happens to the deploy.
func (d Deploy) Ended() bool { return d.State != DeployRunning && d.State != DeployAborting }

// DeployStrategy says in what order machines are changed.
type DeployStrategy string

// The strategies.
const (
	// StrategyRolling changes MaxUnavailable machines at a time, and begins the next when one is started and its checks pass.
	StrategyRolling DeployStrategy = "rolling"
	// StrategyImmediate changes all at once and waits for none.
	StrategyImmediate DeployStrategy = "immediate"
)

// DeployOptions say how a deploy goes. WaitTimeout bounds how long a machine may take to be well.
type DeployOptions struct {
	Strategy       DeployStrategy `json:"strategy"`
	MaxUnavailable int            `json:"max_unavailable"`
	WaitTimeout    Duration       `json:"wait_timeout"`
}

// DefaultDeployWait is WaitTimeout where none is given.
const DefaultDeployWait = Duration(5 * time.Minute)

// MaxDeployItems bounds the machines of one deploy.
const MaxDeployItems = 500

// DeployAction is what a deploy does with a machine.
type DeployAction string

// The actions.
const (
	DeployCreate  DeployAction = "create"
	DeployUpdate  DeployAction = "update"
	DeployRestart DeployAction = "restart"
	DeployDestroy DeployAction = "destroy"
	// DeployRun makes a machine that runs a command to its end before anything else is done, and destroys it then. Another exit code than 0 ends the deploy.
	DeployRun DeployAction = "run"
)

// DeployItem is one machine of a deploy. A machine that is to be created has a Name, by which it is found again; the others have an ID.
type DeployItem struct {
	Action  DeployAction `json:"action"`
	Machine MachineID    `json:"machine,omitempty"`
	Name    string       `json:"name,omitempty"`
	Region  Region       `json:"region,omitempty"`
	Group   string       `json:"group,omitempty"`
	// Config is what it gets; for create, update and run.
	Config *MachineConfig  `json:"config,omitempty"`
	State  DeployItemState `json:"state"`
	Reason string          `json:"reason,omitempty"`
	// Timeout is how long a command may run. ExitCode is how it ended, and Log the last that it wrote, which is there when LogRead is.
	Timeout  Duration  `json:"timeout,omitempty"`
	ExitCode *int      `json:"exit_code,omitempty"`
	Log      []LogLine `json:"log,omitempty"`
	LogRead  bool      `json:"log_read,omitempty"`
	// Run is the machine's when its turn came, BegunAt when that was.
	Run     uint64    `json:"run,omitempty"`
	BegunAt time.Time `json:"begun_at,omitzero"`
	EndedAt time.Time `json:"ended_at,omitzero"`
}

// DeployItemState is where a machine is in a deploy.
type DeployItemState string

// The states of items. Those of a deploy that failed or was aborted may end in DeployItemLeft: untouched.
const (
	DeployItemWaiting  DeployItemState = "waiting"
	DeployItemChanging DeployItemState = "changing"
	DeployItemChecking DeployItemState = "checking"
	// DeployItemClearing: a command has ended, or is given up, and its machine is being destroyed.
	DeployItemClearing DeployItemState = "clearing"
	DeployItemDone     DeployItemState = "done"
	DeployItemFailed   DeployItemState = "failed"
	DeployItemLeft     DeployItemState = "left"
)

// UnderWay tells whether the machine's turn has come and is not over.
func (i DeployItem) UnderWay() bool {
	return i.State == DeployItemChanging || i.State == DeployItemChecking || i.State == DeployItemClearing
}

// Called is how people call the item's machine.
func (i DeployItem) Called() string {
	switch {
	case i.Machine == "":
		return i.Name
	case i.Name == "":
		return string(i.Machine)
	}
	return fmt.Sprintf("%s (%s)", i.Machine, i.Name)
}

// Count counts the machines in a state; one that only runs a command is none.
func (d Deploy) Count(state DeployItemState) int {
	n := 0
	for _, i := range d.Items {
		if i.State == state && i.Action != DeployRun {
			n++
		}
	}
	return n
}

// Machines counts the machines that it changes.
func (d Deploy) Machines() int {
	n := len(d.Items)
	for _, i := range d.Items {
		if i.Action == DeployRun {
			n--
		}
	}
	return n
}
