package drover

import (
	"fmt"
	"time"
)

// StandbyState is what a standby is now.
type StandbyState string

// The states.
const (
	// StandbyFilling: no step is complete yet, so it is of no use.
	StandbyFilling StandbyState = "filling"
	// StandbyFollowing: there is a complete step, and newer ones are made.
	StandbyFollowing StandbyState = "following"
	// StandbyDeleting: what hosts keep for it is being removed.
	StandbyDeleting StandbyState = "deleting"
)

// Bounds of a standby's interval.
const (
	DefaultStandbyEvery = Duration(60 * time.Second)
	MinStandbyEvery     = Duration(time.Second)
	MaxStandbyEvery     = Duration(24 * time.Hour)
)

// Standby is a copy of a volume on another host that follows it in steps. Each step is what the volume held at one moment.
type Standby struct {
	ID     StandbyID `json:"id"`
	Volume VolumeID  `json:"volume"`
	App    AppName   `json:"app"`
	// Host has the copy. Pinned: the user chose it, or Region; otherwise it may be anywhere but with the volume.
	Host   HostID       `json:"host"`
	Region Region       `json:"region,omitempty"`
	Every  Duration     `json:"every"`
	State  StandbyState `json:"state"`
	// Step counts from 1; it is the one that is being made, or was made last. Complete is the last whole one, 0 for none.
	Step     int `json:"step"`
	Complete int `json:"complete"`
	// Source is where Step comes from; Over is the step that it is a change to, 0 for a whole copy.
	Source HostID `json:"source,omitempty"`
	Over   int    `json:"over,omitempty"`
	// Export is what the source lets the host read; nil before it did. TakenAt is the moment of Step.
	Export  *Export   `json:"export,omitempty"`
	TakenAt time.Time `json:"taken_at,omitzero"`
	// CompleteAt is the moment whose content the last whole step has, CompleteFrom the host that still knows what it held then.
	CompleteAt   time.Time `json:"complete_at,omitzero"`
	CompleteFrom HostID    `json:"complete_from,omitempty"`
	CompleteSize Bytes     `json:"complete_size,omitempty"`
	// Copied is what the last whole step took over the network, Pending what the one under way still has to copy, as last heard.
	Copied  Bytes `json:"copied"`
	Pending Bytes `json:"pending"`
	// Releases are frozen layers of volumes that hosts still have to give up.
	Releases []StandbyRelease `json:"releases,omitempty"`
	// Replaces is the standby that goes when this one has a whole step.
	Replaces  StandbyID `json:"replaces,omitempty"`
	BegunAt   time.Time `json:"begun_at,omitzero"`
	CreatedAt time.Time `json:"created_at"`
	// Problem is why the step under way does not go on.
	Problem *Error `json:"problem,omitempty"`
	// LagSeconds is filled in by the control side: how old the last whole step is; -1 while there is none.
	LagSeconds int64 `json:"lag_seconds"`
}

// StandbyRelease names a frozen layer of a step on a host.
type StandbyRelease struct {
	Host HostID `json:"host"`
	Step int    `json:"step"`
}

// The orders of standbys.
const (
	// OrderStandbyFreeze, to the host of the volume: freeze what it holds as a step, and let the standby's host read what changed since the
	// step Over. StandbyFreezeRequest, StandbyFrozen. NotFound: the step Over is not there. Canceled after OrderStandbyRelease.
	OrderStandbyFreeze Order = "standby.freeze"
	// OrderStandbyRelease, to the host that froze a step: nobody needs it any more. StandbyReleaseRequest, Empty.
	OrderStandbyRelease Order = "standby.release"
	// OrderStandbyCopy, to the standby's host: copy a step over the last whole one, and tell how far that is. StandbyCopyRequest, StandbyCopied.
	// Begins it and answers at once.
	OrderStandbyCopy Order = "standby.copy"
	// OrderStandbyDrop, to the standby's host: remove all of it. StandbyDropRequest, Empty.
	OrderStandbyDrop Order = "standby.drop"
)

// StandbyFreezeRequest names a step. Over 0 asks for all of it.
type StandbyFreezeRequest struct {
	Standby StandbyID `json:"standby"`
	Volume  Volume    `json:"volume"`
	Step    int       `json:"step"`
	Over    int       `json:"over,omitempty"`
	Target  HostID    `json:"target"`
}

// StandbyFrozen is a step that can be read.
type StandbyFrozen struct {
	Export  Export    `json:"export"`
	TakenAt time.Time `json:"taken_at"`
}

// StandbyReleaseRequest names a step on its source.
type StandbyReleaseRequest struct {
	Standby StandbyID `json:"standby"`
	Volume  VolumeID  `json:"volume"`
	Step    int       `json:"step"`
	Target  HostID    `json:"target"`
	Wipe    bool      `json:"wipe,omitempty"`
}

// StandbyCopyRequest hands a step to the standby's host.
type StandbyCopyRequest struct {
	Standby StandbyID `json:"standby"`
	Volume  VolumeID  `json:"volume"`
	Step    int       `json:"step"`
	// Over is the whole step that this is a change to; 0 for a whole copy.
	Over    int       `json:"over,omitempty"`
	Export  Export    `json:"export"`
	TakenAt time.Time `json:"taken_at"`
}

// StandbyCopied is how far a step is. Done: it is whole and durable, and its source is needed no more.
type StandbyCopied struct {
	Hydration Hydration `json:"hydration"`
	Done      bool      `json:"done"`
}

// StandbyDropRequest names a standby on its host.
type StandbyDropRequest struct {
	Standby StandbyID `json:"standby"`
	Volume  VolumeID  `json:"volume"`
	Wipe    bool      `json:"wipe,omitempty"`
}

// StandbySourceLayer names the layer that is frozen for a step on the volume's host, StandbyLayer the one that holds it on the standby's.
func StandbySourceLayer(v VolumeID, s StandbyID, step int) LayerID {
	return LayerID(fmt.Sprintf("%s.%s.%d", v, s, step))
}

// StandbyLayer names the layer that holds a step on the standby's host.
func StandbyLayer(v VolumeID, s StandbyID, step int) LayerID {
	return LayerID(fmt.Sprintf("%s.%s.s%d", v, s, step))
}
