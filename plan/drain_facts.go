package plan

import (
	"time"

	"drover"
)

// DrainFacts is what a controller knows beside the record of a drain.
type DrainFacts struct {
	// Marked: the host's mark is made; of a return, it is taken away. Rival names a drain of the same host that was there first.
	Marked bool
	Rival  drover.DrainID
	// Machines has what is known of each machine of the drain; one that is not there does not exist any more.
	Machines map[drover.MachineID]MachineFacts
	// There are the machines that are placed on the host of a drain now.
	There []Candidate
	// Rooms is what the hosts have left, without what is promised elsewhere; nil when it was not asked for.
	Rooms []Room
	// Slots are those of everything else that is being moved, by other drains or by users.
	Slots []Slot
	// Down has for each group those of its members that are unavailable for other reasons than a move, with the reason.
	Down map[string][]string
	// Halted has why the machines of a class are not moved.
	Halted map[string]string
	// SourceDown says why nothing can leave the host; empty when it answers.
	SourceDown string
	// Rates is what moves take.
	Rates Rates
}

// MachineFacts is what is known of one machine.
type MachineFacts struct {
	Candidate Candidate
	// Host is where it is placed. Doomed: it is being destroyed.
	Host   drover.HostID
	Doomed bool
	// Stopped: it does not run, and is not meant to.
	Stopped bool
	// Held names a migration that is not the drain's and has the machine; empty when none has.
	Held string
	// Moves are the drain's own migrations of it, oldest first.
	Moves []MoveFacts
	// Ill says why it is not healthy where it is now; empty when it is.
	Ill string
	// Begin is what the last try to begin its move said; nil when nothing was tried, or it went well.
	Begin *drover.Error
	// Hook is what came of its hook; nil while it runs, or when this controller has not begun it.
	Hook *HookResult
}

// MoveFacts is a migration with what is known of its hosts.
type MoveFacts struct {
	Migration drover.Migration
	// SourceDown and TargetDown: the host does not answer now, so the failure says nothing about the machine.
	SourceDown, TargetDown bool
}

// HookResult is how a hook ended.
type HookResult struct{ Err *drover.Error }

// DrainActKind is what a controller is to do for a drain.
type DrainActKind string

// The kinds of acts. Each may be repeated, and is done after the record that asks for it is stored.
const (
	// ActMark: make the mark of the host; for a return, take it away.
	ActMark DrainActKind = "mark"
	// ActHook: run the hook of Machine, unless it runs.
	ActHook DrainActKind = "hook"
	// ActBegin: begin a migration of Machine to Target.
	ActBegin DrainActKind = "begin"
	// ActAbort: give Migration up, if it can be.
	ActAbort DrainActKind = "abort"
	// ActStop: stop Machine.
	ActStop DrainActKind = "stop"
)

// DrainAct is one thing to do.
type DrainAct struct {
	Kind      DrainActKind
	Machine   drover.MachineID
	Target    drover.HostID
	Migration drover.MigrationID
	Options   drover.MoveOptions
}

// Bounds of a drain.
const (
	// beginTries is how often the move of a machine is begun in vain before it counts as failed.
	beginTries = 5
	// beginPause is the time between two of them, roleBound how long a primary may take to hand its role over after its hook.
	beginPause = 5 * time.Second
	roleBound  = 30 * time.Second
)

// MoveOptions is how the drain moves a machine.
func MoveOptions(d drover.Drain, i drover.DrainItem, c Candidate) drover.MoveOptions {
	live := !d.Options.Cold && !i.Cold
	o := drover.MoveOptions{Live: live, LiveOrCold: live && !d.Options.Live && !liveFirst(d, i, c), Bandwidth: Share(d)}
	if d.Options.Suspect {
		o.Damaged = true // what can be read is to be saved
		o.Switch = drover.SwitchEarly
	}
	return o
}
