package drover

import (
	"maps"
	"strconv"
	"strings"
	"time"
)

// The labels that say how a machine may be moved. They are metadata of a machine's config or of its app; the machine's own count first.
const (
	// LabelMove says whether it may be moved at all: a MovePolicy.
	LabelMove = "drover.move"
	// LabelGroup names the group of machines of one organisation of which only so many may be unavailable at once.
	LabelGroup = "drover.group"
	// LabelMaxUnavailable is how many that are; 1 without it.
	LabelMaxUnavailable = "drover.max-unavailable"
	// LabelRole is what the machine is to its group or app now: a MoveRole.
	LabelRole = "drover.role"
	// LabelClass names what fails together: the first failed move of a class stops the others. The app's name without it.
	LabelClass = "drover.class"
	// LabelValue is a number: what is worth more leaves a suspect host first. 0 without it.
	LabelValue = "drover.value"
	// LabelPreMove is a command that is run in the guest before its move, by /bin/sh; LabelPreMoveTimeout bounds it, 60s without it.
	LabelPreMove        = "drover.pre-move"
	LabelPreMoveTimeout = "drover.pre-move-timeout"
	// LabelPreMoveFor says before which moves it is run: "any", or "cold": not before one that takes the memory along. "any" without it.
	LabelPreMoveFor = "drover.pre-move-for"
	// LabelGate says when a machine that was moved counts as healthy: "started" (and its checks pass), or "hydrated": its data is there, too.
	LabelGate = "drover.move-gate"
)

// labelPrefix begins the keys that are Drover's.
const labelPrefix = "drover."

// MovePolicy says whether a machine may be moved.
type MovePolicy string

// The policies.
const (
	// MoveAny: whenever the limits allow it. The default.
	MoveAny MovePolicy = "any"
	// MoveOneAtATime: while no other machine of its class is being moved, in any drain.
	MoveOneAtATime MovePolicy = "one-at-a-time"
	// MoveAsk: when somebody has approved it.
	MoveAsk MovePolicy = "ask"
	// MoveNever: not by a drain.
	MoveNever MovePolicy = "never"
)

// MoveRole is what a machine is to its group.
type MoveRole string

// The roles. A machine may have none.
const (
	RolePrimary MoveRole = "primary"
	RoleReplica MoveRole = "replica"
)

// RoleHeader is the header by which the answer to a health check tells the machine's role. What is told so counts before the label.
const RoleHeader = "Drover-Role"

// Known reports whether it is one of the roles.
func (r MoveRole) Known() bool { return r == RolePrimary || r == RoleReplica }

// Bounds of a hook.
const (
	preMoveDefault = 60 * time.Second
	preMoveMost    = 10 * time.Minute
)

// Labels is what the labels of a machine say.
type Labels struct {
	Policy         MovePolicy
	Group          string
	MaxUnavailable int
	Role           MoveRole
	Class          string
	Value          float64
	PreMove        string
	PreMoveTimeout time.Duration
	// PreMoveCold: the command is run before cold moves only.
	PreMoveCold bool
	// Hydrated: it counts as healthy after a move when its data is there.
	Hydrated bool
	// Problem names a label that cannot be read; the machine is treated as MoveAsk then.
	Problem string
}

// LabelsOf reads the labels of a machine from its app's metadata and its own.
func LabelsOf(app App, m Machine) Labels {
	all := maps.Clone(app.Metadata)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, m.Config.Metadata)
	l := Labels{Policy: MoveAny, MaxUnavailable: 1, Class: string(m.App), PreMoveTimeout: preMoveDefault}
	for key, value := range all {
		if e := CheckLabel(key, value); e != nil {
			l.Problem = e.Text
			continue
		}
		l.take(key, value)
	}
	if l.Problem != "" && l.Policy != MoveNever {
		l.Policy = MoveAsk
	}
	return l
}

// take reads one label that was checked.
func (l *Labels) take(key, value string) {
	if value == "" {
		return
	}
	switch key {
	case LabelMove:
		l.Policy = MovePolicy(value)
	case LabelGroup:
		l.Group = value
	case LabelMaxUnavailable:
		l.MaxUnavailable, _ = strconv.Atoi(value) // checked
	case LabelRole:
		l.Role = MoveRole(value)
	case LabelClass:
		l.Class = value
	case LabelValue:
		l.Value, _ = strconv.ParseFloat(value, 64) // checked
	case LabelPreMove:
		l.PreMove = value
	case LabelPreMoveTimeout:
		l.PreMoveTimeout, _ = time.ParseDuration(value) // checked
	case LabelPreMoveFor:
		l.PreMoveCold = value == "cold"
	case LabelGate:
		l.Hydrated = value == "hydrated"
	}
}

// CheckLabel tells what is wrong with a label of Drover's; nil for any other, and for an empty value, which is as good as none.
func CheckLabel(key, value string) *Error {
	if !strings.HasPrefix(key, labelPrefix) || value == "" {
		return nil
	}
	wrong := func(want string) *Error {
		return Errorf(Invalid, "label %s is %.100q; expected %s", key, value, want)
	}
	switch key {
	case LabelMove:
		switch MovePolicy(value) {
		case MoveAny, MoveOneAtATime, MoveAsk, MoveNever:
			return nil
		}
		return wrong("any, one-at-a-time, ask or never")
	case LabelGroup, LabelClass:
		if !ValidName(value) {
			return wrong("a name of lower-case letters, digits and hyphens")
		}
	case LabelMaxUnavailable:
		if n, err := strconv.Atoi(value); err != nil || n < 1 || n > 1000 {
			return wrong("a number from 1 to 1000")
		}
	case LabelRole:
		if !MoveRole(value).Known() {
			return wrong("primary or replica")
		}
	case LabelValue:
		if v, err := strconv.ParseFloat(value, 64); err != nil || v != v || v < -1e9 || v > 1e9 {
			return wrong("a number from -1e9 to 1e9")
		}
	case LabelPreMove:
		if len(value) > 4096 || strings.ContainsRune(value, 0) {
			return wrong("a command of at most 4096 bytes")
		}
	case LabelPreMoveTimeout:
		if d, err := time.ParseDuration(value); err != nil || d < time.Second || d > preMoveMost {
			return wrong("a duration from 1s to " + preMoveMost.String())
		}
	case LabelPreMoveFor:
		if value != "any" && value != "cold" {
			return wrong("any or cold")
		}
	case LabelGate:
		if value != "started" && value != "hydrated" {
			return wrong("started or hydrated")
		}
	default:
		return Errorf(Invalid, "label %.100q is unknown: labels that begin with %q are Drover's own", key, labelPrefix).
			WithHint("see docs/DRAIN.md for those that there are")
	}
	return nil
}
