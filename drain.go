package drover

import (
	"fmt"
	"strings"
	"time"
)

// DrainKind is which way the machines go.
type DrainKind string

// The kinds.
const (
	// DrainAway: everything off one host.
	DrainAway DrainKind = "drain"
	// DrainReturn: what a drain moved, back to where it was.
	DrainReturn DrainKind = "return"
)

// DrainState is what a drain is now.
type DrainState string

// The states. A drain goes from planned to running, from there to paused and back, and ends as done, failed or aborted.
const (
	// DrainPlanned: the record is there; the host is closed by it, its mark is not made yet. A plan that is only shown is in this state, too.
	DrainPlanned DrainState = "planned"
	// DrainRunning: moves are begun as the limits allow.
	DrainRunning DrainState = "running"
	// DrainPaused: nothing new is begun; what was begun goes on.
	DrainPaused DrainState = "paused"
	// DrainAborting: nothing new is begun ever; what was begun comes to its end.
	DrainAborting DrainState = "aborting"
	// DrainAborted: it was given up; what was moved stays where it is now.
	DrainAborted DrainState = "aborted"
	// DrainDone: every machine was moved.
	DrainDone DrainState = "done"
	// DrainFailed: it has ended, and machines were not moved: Problem and their items say why.
	DrainFailed DrainState = "failed"
)

// DrainStates lists the states.
var DrainStates = []DrainState{DrainPlanned, DrainRunning, DrainPaused, DrainAborting, DrainAborted, DrainDone, DrainFailed}

// ItemState is what became of one machine of a drain.
type ItemState string

// The states of items. Waiting, hook, starting, moving, settling, hydrating and moved come in this order.
const (
	// ItemWaiting: its turn has not come; Reason says why not.
	ItemWaiting ItemState = "waiting"
	// ItemHook: its command runs in the guest, or what that should bring about is waited for.
	ItemHook ItemState = "hook"
	// ItemStarting: its migration is being begun.
	ItemStarting ItemState = "starting"
	// ItemMoving: the migration is on its way to the moment in which the machine runs on the target.
	ItemMoving ItemState = "moving"
	// ItemSettling: it runs on the target and is not healthy for long enough.
	ItemSettling ItemState = "settling"
	// ItemHydrating: it is healthy; its data follows.
	ItemHydrating ItemState = "hydrating"
	// ItemMoved: the machine and its data are on the target.
	ItemMoved ItemState = "moved"
	// ItemStopping: the deadline is over, and it is being stopped where it is.
	ItemStopping ItemState = "stopping"
	// ItemStopped: it was stopped at the deadline, and is where it was.
	ItemStopped ItemState = "stopped"
	// ItemLeft: the drain ended before its turn came; it is where it was, as it was.
	ItemLeft ItemState = "left"
	// ItemStuck: it cannot be moved; Reason says why.
	ItemStuck ItemState = "stuck"
	// ItemFailed: its move failed; Reason says why, and it is where it was.
	ItemFailed ItemState = "failed"
	// ItemGone: it was destroyed, or left the host by itself.
	ItemGone ItemState = "gone"
)

// ItemStates lists the states.
var ItemStates = []ItemState{ItemWaiting, ItemHook, ItemStarting, ItemMoving, ItemSettling, ItemHydrating, ItemMoved, ItemStopping, ItemStopped,
	ItemLeft, ItemStuck, ItemFailed, ItemGone}

// Over reports whether nothing more is done for the item.
func (s ItemState) Over() bool {
	switch s {
	case ItemMoved, ItemStopped, ItemLeft, ItemStuck, ItemFailed, ItemGone:
		return true
	}
	return false
}

// InFlight reports whether something is being done with the machine.
func (s ItemState) InFlight() bool {
	switch s {
	case ItemHook, ItemStarting, ItemMoving, ItemSettling, ItemHydrating, ItemStopping:
		return true
	}
	return false
}

// AtDeadline is what becomes of the machines that were not moved when the time is over.
type AtDeadline string

// The ends.
const (
	// DeadlineLeave: they stay where they are and run on.
	DeadlineLeave AtDeadline = "leave"
	// DeadlineStop: they are stopped.
	DeadlineStop AtDeadline = "stop"
)

// DrainOptions is how a drain is to go. Zero means the default.
type DrainOptions struct {
	// Suspect: the host is not trusted. The switch is made early, and what is most valuable leaves first.
	Suspect bool `json:"suspect,omitempty"`
	// Live takes live moves only, Cold cold ones only. Neither: live where that can be, else cold.
	Live bool `json:"live,omitempty"`
	Cold bool `json:"cold,omitempty"`
	// AllowPartial moves what can be moved when something cannot.
	AllowPartial bool `json:"allow_partial,omitempty"`
	// The limits: how many at once off one host (4), to one host (2), of one app (1), and of one named private network (1).
	PerSource  int `json:"per_source,omitempty"`
	PerTarget  int `json:"per_target,omitempty"`
	PerApp     int `json:"per_app,omitempty"`
	PerNetwork int `json:"per_network,omitempty"`
	// Bandwidth bounds all copying of the drain together, in bytes per second; 0 leaves it to the hosts.
	Bandwidth Bytes `json:"bandwidth,omitempty"`
	// Deadline is how long after its beginning nothing new is begun any more; 0 is never. AtDeadline is leave without it.
	Deadline   Duration   `json:"deadline,omitempty"`
	AtDeadline AtDeadline `json:"at_deadline,omitempty"`
	// Window is when moves may be begun, every day, in UTC: "01:00-05:00". Empty is always.
	Window string `json:"window,omitempty"`
	// MinHealthy is how long a moved machine must have been healthy before the next of its app goes (10 s); HealthyDeadline after what time of not
	// being healthy its move counts as failed (5 min).
	MinHealthy      Duration `json:"min_healthy,omitempty"`
	HealthyDeadline Duration `json:"healthy_deadline,omitempty"`
	// MarkFor is after what time the mark of the host is to be looked after (24 h).
	MarkFor Duration `json:"mark_for,omitempty"`
}

// DrainItem is one machine of a drain.
type DrainItem struct {
	Machine MachineID `json:"machine"`
	Name    string    `json:"name"`
	App     AppName   `json:"app"`
	Network string    `json:"network,omitempty"`
	Class   string    `json:"class"`
	Group   string    `json:"group,omitempty"`
	Source  HostID    `json:"source"`
	Target  HostID    `json:"target,omitempty"`
	// MemoryMB, CPUs and Bytes are what it needs on the target. Bytes is what its disks hold.
	MemoryMB int       `json:"memory_mb"`
	CPUs     int       `json:"cpus"`
	Bytes    Bytes     `json:"bytes"`
	Running  bool      `json:"running"`
	State    ItemState `json:"state"`
	// Reason says why it waits, cannot be moved, or failed.
	Reason string `json:"reason,omitempty"`
	// Ask: it is not moved before somebody has approved it. ApprovedBy is who has.
	Ask        bool   `json:"ask,omitempty"`
	ApprovedBy string `json:"approved_by,omitempty"`
	// Alone: no other machine of its class is moved at the same time.
	Alone bool `json:"alone,omitempty"`
	// ExpectedInterruption, ExpectedStart and ExpectedEnd are what the plan says.
	ExpectedInterruption Duration  `json:"expected_interruption"`
	ExpectedStart        time.Time `json:"expected_start,omitzero"`
	ExpectedEnd          time.Time `json:"expected_end,omitzero"`
	// Migration is its newest one, Tried are those before. Avoid are targets that turned out not to do.
	Migration MigrationID   `json:"migration,omitempty"`
	Tried     []MigrationID `json:"tried,omitempty"`
	Avoid     []HostID      `json:"avoid,omitempty"`
	// Tries counts how often its move was begun in vain; RetryAt is when it may be begun again.
	Tries   int       `json:"tries,omitempty"`
	RetryAt time.Time `json:"retry_at,omitzero"`
	// HookAt is when its hook was begun, HookDoneAt when it had ended well. WasPrimary: it had that role then.
	HookAt     time.Time `json:"hook_at,omitzero"`
	HookDoneAt time.Time `json:"hook_done_at,omitzero"`
	WasPrimary bool      `json:"was_primary,omitempty"`
	// Cold: it could not be moved live, and is moved cold after its hook, which is for such moves only.
	Cold bool `json:"cold,omitempty"`
	// StartedAt is when its move was begun, ArrivedAt when it had come to run on the target, HealthySince since when it was seen healthy there.
	StartedAt    time.Time `json:"started_at,omitzero"`
	ArrivedAt    time.Time `json:"arrived_at,omitzero"`
	HealthySince time.Time `json:"healthy_since,omitzero"`
	EndedAt      time.Time `json:"ended_at,omitzero"`
	// Interruption, Copied and Live are what became of it.
	Interruption Duration `json:"interruption,omitempty"`
	Copied       Bytes    `json:"copied,omitempty"`
	Live         bool     `json:"live,omitempty"`
	// Rate and Phase are there while its migration goes on.
	Rate  Bytes `json:"rate,omitempty"`
	Phase Phase `json:"phase,omitempty"`
}

// DrainTotals sums the items up.
type DrainTotals struct {
	Machines int `json:"machines"`
	Moved    int `json:"moved"`
	InFlight int `json:"in_flight"`
	Waiting  int `json:"waiting"`
	// NotMoved are those that stay: stuck, failed, left and stopped ones.
	NotMoved int   `json:"not_moved"`
	Bytes    Bytes `json:"bytes"`
	Copied   Bytes `json:"copied"`
	Rate     Bytes `json:"rate,omitempty"`
}

// Drain is the durable record of migrating everything off one host: who, why, how long, how much. Whoever holds the lease goes on with it.
type Drain struct {
	ID   DrainID   `json:"id"`
	Kind DrainKind `json:"kind"`
	// Host is the one that is emptied; of a return, the one that is filled again.
	Host   HostID `json:"host"`
	Region Region `json:"region"`
	// Returns is the drain that a return takes back.
	Returns DrainID      `json:"returns,omitempty"`
	Actor   string       `json:"actor"`
	Reason  string       `json:"reason"`
	Options DrainOptions `json:"options"`
	State   DrainState   `json:"state"`
	// Waits says why nothing is begun now; empty while moves are under way as they should be.
	Waits string `json:"waits,omitempty"`
	// AbortRunning: the abort takes those with it that have not reached their switch.
	AbortRunning bool `json:"abort_running,omitempty"`
	// Problem says why it failed or was aborted.
	Problem *Error      `json:"problem,omitempty"`
	Items   []DrainItem `json:"items"`
	// Stays names what is on the host, is no machine and is not moved: volumes that no machine has.
	Stays  []string    `json:"stays,omitempty"`
	Totals DrainTotals `json:"totals"`
	// ExpectedSeconds is how long the plan said it would take, ExpectedEnd when it is to end as things are now.
	ExpectedSeconds float64   `json:"expected_seconds"`
	ExpectedEnd     time.Time `json:"expected_end,omitzero"`
	CreatedAt       time.Time `json:"created_at"`
	StartedAt       time.Time `json:"started_at,omitzero"`
	EndedAt         time.Time `json:"ended_at,omitzero"`
	UpdatedAt       time.Time `json:"updated_at"`
	// Traced is what became of its trace; empty while that is still to be exported.
	Traced TraceResult `json:"traced,omitempty"`
}

// Ended reports whether nothing is left to be done.
func (d *Drain) Ended() bool {
	return d.State == DrainDone || d.State == DrainFailed || d.State == DrainAborted
}

// Item returns the item of a machine, nil if there is none.
func (d *Drain) Item(id MachineID) *DrainItem {
	for i := range d.Items {
		if d.Items[i].Machine == id {
			return &d.Items[i]
		}
	}
	return nil
}

// Sum returns the totals of the items.
func (d *Drain) Sum() DrainTotals {
	t := DrainTotals{Machines: len(d.Items)}
	for _, i := range d.Items {
		switch {
		case i.State == ItemMoved:
			t.Moved++
		case i.State == ItemGone:
			t.Machines--
			continue
		case i.State.InFlight():
			t.InFlight++
		case i.State == ItemWaiting:
			t.Waiting++
		default:
			t.NotMoved++
		}
		t.Bytes += i.Bytes
		t.Copied += i.Copied
		t.Rate += i.Rate
	}
	return t
}

// ClassHalt stops all drains from moving machines of a class, after a move of one failed.
type ClassHalt struct {
	Class     string      `json:"class"`
	Drain     DrainID     `json:"drain"`
	Migration MigrationID `json:"migration"`
	Machine   MachineID   `json:"machine"`
	// Host is where the machine is.
	Host   HostID    `json:"host"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// HostCheck says whether a host can be drained now.
type HostCheck struct {
	Host     HostID `json:"host"`
	OK       bool   `json:"ok"`
	Machines int    `json:"machines"`
	// Missing says what there would have to be, in words; empty when OK.
	Missing string `json:"missing,omitempty"`
}

// RegionCheck says whether every single host of a region can be drained now.
type RegionCheck struct {
	Region Region      `json:"region"`
	OK     bool        `json:"ok"`
	Hosts  []HostCheck `json:"hosts"`
	At     time.Time   `json:"at"`
}

// Window is a part of each day, in UTC. From may be after To: the window spans midnight then.
type Window struct{ From, To time.Duration }

// ParseWindow reads a window such as "01:00-05:00". Empty is nil: always.
func ParseWindow(text string) (*Window, *Error) {
	if text == "" {
		return nil, nil
	}
	var w Window
	from, to, ok := strings.Cut(text, "-")
	for _, part := range []struct {
		text string
		into *time.Duration
	}{{from, &w.From}, {to, &w.To}} {
		at, err := time.Parse("15:04", part.text)
		if err != nil {
			ok = false
			break
		}
		*part.into = time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute
	}
	if !ok || w.From == w.To {
		return nil, Errorf(Invalid, "window: %.40q is not a part of the day such as \"01:00-05:00\", which is in UTC", text).WithField("window")
	}
	return &w, nil
}

// Open reports whether the moment is in the window, and if not, when it begins.
func (w *Window) Open(now time.Time) (bool, time.Time) {
	if w == nil {
		return true, time.Time{}
	}
	now = now.UTC()
	day := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC)
	at := now.Sub(day)
	open := at >= w.From && at < w.To
	if w.From > w.To {
		open = at >= w.From || at < w.To
	}
	if open {
		return true, time.Time{}
	}
	next := day.Add(w.From)
	if !next.After(now) {
		next = next.Add(24 * time.Hour)
	}
	return false, next
}

// Limits of the options.
const (
	maxParallel     = 1000
	maxMarkFor      = 366 * 24 * time.Hour
	maxDrainReason  = 500
	maxHealthyBound = 24 * time.Hour
)

// CheckDrain tells what is wrong with the reason and the options of a drain; nil when nothing is.
func CheckDrain(reason string, o DrainOptions) *Error {
	bad := func(field, format string, args ...any) *Error {
		return Errorf(Invalid, "%s: %s", field, fmt.Sprintf(format, args...)).WithField(field)
	}
	if e := CheckReason(reason); e != nil {
		return e
	}
	if _, e := ParseWindow(o.Window); e != nil {
		return e
	}
	for field, n := range map[string]int{"per_source": o.PerSource, "per_target": o.PerTarget, "per_app": o.PerApp, "per_network": o.PerNetwork} {
		if n < 0 || n > maxParallel {
			return bad(field, "%d is out of range: 0 (the default) to %d", n, maxParallel)
		}
	}
	switch {
	case o.Live && o.Cold:
		return bad("live", "live and cold are both asked for; expected one of them, or neither")
	case o.Bandwidth < 0 || (o.Bandwidth > 0 && o.Bandwidth < 64*KiB):
		return bad("bandwidth", "%d bytes per second are too few: at least %d", o.Bandwidth, 64*KiB)
	case o.Deadline < 0 || (o.Deadline > 0 && time.Duration(o.Deadline) < time.Second):
		return bad("deadline", "%v is too short: at least 1s", time.Duration(o.Deadline))
	case o.AtDeadline != "" && o.AtDeadline != DeadlineLeave && o.AtDeadline != DeadlineStop:
		return bad("at_deadline", "%.20q is unknown: use leave or stop", o.AtDeadline)
	case o.AtDeadline != "" && o.Deadline == 0:
		return bad("at_deadline", "there is no deadline")
	case o.MinHealthy < 0 || time.Duration(o.MinHealthy) > maxHealthyBound:
		return bad("min_healthy", "%v is out of range: 0s to %v", time.Duration(o.MinHealthy), maxHealthyBound)
	case o.HealthyDeadline < 0 || time.Duration(o.HealthyDeadline) > maxHealthyBound:
		return bad("healthy_deadline", "%v is out of range: 0s to %v", time.Duration(o.HealthyDeadline), maxHealthyBound)
	case o.MarkFor < 0 || time.Duration(o.MarkFor) > maxMarkFor:
		return bad("mark_for", "%v is out of range: at most %v", time.Duration(o.MarkFor), maxMarkFor)
	}
	return nil
}

// CheckReason refuses a missing or endless reason.
func CheckReason(reason string) *Error {
	switch {
	case strings.TrimSpace(reason) == "":
		return Errorf(Invalid, "reason: is missing: whoever finds the host closed wants to know why").WithField("reason")
	case len(reason) > maxDrainReason:
		return Errorf(Invalid, "reason: %d bytes are too many: at most %d", len(reason), maxDrainReason).WithField("reason")
	}
	return nil
}

// WithDefaults returns the options with every default filled in.
func (o DrainOptions) WithDefaults() DrainOptions {
	for _, d := range []struct {
		into *int
		n    int
	}{{&o.PerSource, 4}, {&o.PerTarget, 2}, {&o.PerApp, 1}, {&o.PerNetwork, 1}} {
		if *d.into == 0 {
			*d.into = d.n
		}
	}
	if o.MinHealthy == 0 {
		o.MinHealthy = Duration(10 * time.Second)
	}
	if o.HealthyDeadline == 0 {
		o.HealthyDeadline = Duration(5 * time.Minute)
	}
	if o.MarkFor == 0 {
		o.MarkFor = Duration(24 * time.Hour)
	}
	if o.Deadline > 0 && o.AtDeadline == "" {
		o.AtDeadline = DeadlineLeave
	}
	return o
}
