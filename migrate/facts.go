package migrate

import (
	"time"

	"drover"
)

// Rules are the bounds of a migration.
type Rules struct {
	// Silence is how long a host may fail to answer before the switch.
	Silence time.Duration
	// Reserve, Export and Freeze bound those phases before the switch; Quiesce is added to the machine's stop timeout.
	Reserve, Export, Quiesce, Freeze time.Duration
	// NoProgress is how long nothing may be copied before the switch, for a migration that does not say.
	NoProgress time.Duration
	// Rounds bounds the rounds of a late switch. It is made when what is left is no more than Threshold, or than what is copied in ThresholdTime.
	Rounds        int
	Threshold     drover.Bytes
	ThresholdTime time.Duration
	// LateOver is how much must be to be copied for a switch to be late when that is left to Drover.
	LateOver drover.Bytes
	// Retry is the pause before something that failed is asked again, growing to RetryMost.
	Retry, RetryMost time.Duration
	// StartPoll and HydratePoll are how often the target is asked how far it is; more often in the first seconds of a hydration.
	StartPoll, HydratePoll time.Duration
	// CopyPoll is the pause between two questions how far a round, or the memory, is; the hosts wait a moment themselves before they answer.
	CopyPoll time.Duration
	// Down is how long the target may have been silent at the moment of the switch.
	Down time.Duration
}

// DefaultRules are the bounds that a fleet uses.
func DefaultRules() Rules {
	return Rules{
		Silence: 30 * time.Second,
		Reserve: 15 * time.Minute, Export: 3 * time.Minute, Quiesce: 30 * time.Second, Freeze: 3 * time.Minute,
		NoProgress: 2 * time.Minute, Rounds: 8, Threshold: 16 * drover.MiB, ThresholdTime: 500 * time.Millisecond, LateOver: 64 * drover.MiB,
		Retry: 500 * time.Millisecond, RetryMost: 5 * time.Second,
		StartPoll: 200 * time.Millisecond, HydratePoll: time.Second, CopyPoll: 20 * time.Millisecond,
		Down: 10 * time.Second,
	}
}

// Target is what an order is asked of.
type Target struct {
	Order drover.Order
	Host  drover.HostID
}

// Answer is what came of asking: the last try, and how it has gone since it last went well.
type Answer struct {
	// Err is nil when the last try was answered well.
	Err *drover.Error
	// At is when the last try ended; FailingSince when the first of the failed ones in a row did, zero if the last went well.
	At, FailingSince time.Time
	// Failures counts the failed tries in a row.
	Failures int
}

// Next returns the answer record after one more try.
func (a Answer) Next(err *drover.Error, now time.Time) Answer {
	if err == nil {
		return Answer{At: now}
	}
	next := Answer{Err: err, At: now, FailingSince: a.FailingSince, Failures: a.Failures + 1}
	if next.FailingSince.IsZero() {
		next.FailingSince = now
	}
	return next
}

// Facts is what a controller knows beside the record. A controller that takes over knows nothing; answers are forgotten when a
// phase begins.
type Facts struct {
	// Placement is the newest one that was read from the leader, or made, by this controller; nil when none was, or when it
	// must be read again. PlacementGone says that it was read and there is none.
	Placement     *drover.Placement
	PlacementGone bool
	// Store is what came of the last try to read or change the placement.
	Store Answer
	// Answers of the orders that were given in this phase.
	Answers map[Target]Answer
	// Progress is the target's last word in this phase.
	Progress *drover.MoveProgress
	// Round is what the source froze for the present round, Copied how much of it the target has, Measured that the source told afterwards what
	// has changed since. They are forgotten when a round begins.
	Round    []drover.Export
	Copied   *drover.MoveCopied
	Measured bool
	// Address is where the target takes the memory, Live the source's last word on it.
	Address string
	Live    *drover.MoveLive
	// MovedAt is when something was copied last in this phase, zero for not yet.
	MovedAt time.Time
	// TargetSilent is how long the target has not been heard of.
	TargetSilent time.Duration
	// StopTimeout is how long the machine may take to stop.
	StopTimeout time.Duration
	// Destroyed: a user destroyed the machine, in the moment in which the migration began. Cleared: nothing is left of it.
	Destroyed, Cleared bool
	// Aside: the migration that this one takes back has ended, or stands aside.
	Aside bool
	// Fence is whether the source, of which nothing is asked, is certainly off, as of now. FenceErr says why it is not.
	Fence    Fence
	FenceErr *drover.Error
	// VolumesWritten: the volumes' records say where they are, as of this phase.
	VolumesWritten bool
}

// Fence is what is known of the fence of a host.
type Fence string

// What can be known of a fence: nothing, that it holds, that it does not any more.
const (
	FenceUnknown Fence = ""
	FenceHolds   Fence = "holds"
	FenceGone    Fence = "gone"
)

func (f Facts) answer(order drover.Order, host drover.HostID) (Answer, bool) {
	a, asked := f.Answers[Target{order, host}]
	return a, asked
}

func (f Facts) answered(order drover.Order, host drover.HostID) bool {
	a, asked := f.answer(order, host)
	return asked && a.Err == nil
}

// Kind is what a decision asks for.
type Kind string

// The kinds of decisions.
const (
	// Ask: give Order to Host.
	Ask Kind = "ask"
	// ReadPlacement: read it from the leader.
	ReadPlacement Kind = "read-placement"
	// BeginRound: write into the record that round Round begins.
	BeginRound Kind = "begin-round"
	// EndRounds: write into the record that no further round comes. Reason says why, where little is not left.
	EndRounds Kind = "end-rounds"
	// GoCold: write into the record that the memory stays behind, because of Problem, and begin the phase anew.
	GoCold Kind = "go-cold"
	// Commit: write Committing into the record, and the phase of the switch where it has another.
	Commit Kind = "commit"
	// Switch: change the placement by compare-and-set from FromEpoch.
	Switch Kind = "switch"
	// StandAside: write into the record of the migration that is taken back that it does nothing meanwhile.
	StandAside Kind = "stand-aside"
	// CheckFence: see whether the source is still certainly off.
	CheckFence Kind = "check-fence"
	// Withhold: write the placement of FromEpoch once more, so that no change from it that is still under way fits any more.
	Withhold Kind = "withhold"
	// WriteVolumes: write into the volumes' records where they are.
	WriteVolumes Kind = "write-volumes"
	// Enter: go to Phase.
	Enter Kind = "enter"
	// Abort: give up, because of Problem.
	Abort Kind = "abort"
	// End: nothing is left to be done; the outcome is Outcome.
	End Kind = "end"
	// Wait until Until, or until something changes. Problem says for what; nil when it is the normal course of things.
	Wait Kind = "wait"
	// Nothing: the migration has ended.
	Nothing Kind = "nothing"
)

// Decision is what is to be done now.
type Decision struct {
	Kind    Kind
	Order   drover.Order
	Host    drover.HostID
	Phase   drover.Phase
	Outcome drover.Outcome
	Problem *drover.Error
	Round   int
	Reason  string
	// Until is when a Wait is over, or when an Ask must have been answered; zero for no bound.
	Until time.Time
}
