package host

import (
	"time"

	"drover"
)

// sendRecord is the source's part in moving the memory of a machine.
type sendRecord struct {
	// Address and Bandwidth are the order's; Launch is the VM that it was given for: no other is ever sent.
	Address   string       `json:"address"`
	Bandwidth drover.Bytes `json:"bandwidth,omitempty"`
	Launch    uint64       `json:"launch"`
	AskedAt   time.Time    `json:"asked_at"`
	// Begun: the VMM was told.
	Begun bool `json:"begun,omitempty"`
	// Failed says why the memory does not move. Nothing is sent then, and the VM runs on here, unless the layers are frozen: then it goes on
	// when the migration is aborted.
	Failed string `json:"failed,omitempty"`
	// Done: all of the VM's state is at the target, and its layers are frozen.
	Done     bool              `json:"done,omitempty"`
	Memory   drover.MemoryMove `json:"memory,omitzero"`
	Handover *drover.Handover  `json:"handover,omitempty"`
}

func (s *sendRecord) clone() *sendRecord {
	if s == nil {
		return nil
	}
	c := *s
	return &c
}

// takeRecord is the target's part. A VM may be there from StartedAt on, until Over.
type takeRecord struct {
	Source      drover.HostID      `json:"source"`
	Incarnation drover.Incarnation `json:"incarnation"`
	StartedAt   time.Time          `json:"started_at,omitzero"`
	// Address is where the VM waits for its memory.
	Address string `json:"address,omitempty"`
	// Live: the order to activate said that the state was sent. Handover is what came with it.
	Live     bool             `json:"live,omitempty"`
	Handover *drover.Handover `json:"handover,omitempty"`
	// Over: the VM runs as the machine's own since ResumedAt, or is gone, which ColdReason explains.
	Over       bool      `json:"over,omitempty"`
	ResumedAt  time.Time `json:"resumed_at,omitzero"`
	ColdReason string    `json:"cold_reason,omitempty"`
}

func (t *takeRecord) clone() *takeRecord {
	if t == nil {
		return nil
	}
	c := *t
	return &c
}

// sending reports whether the VM's memory is on its way, or is to be.
func (r *records) sending() bool {
	src := r.source()
	return src != nil && src.Send != nil && src.Send.Failed == "" && !src.Send.Done && src.Ending == "" && src.Moved == 0 &&
		r.Obs.VM.Live && r.Obs.VM.Launch == src.Send.Launch
}

// handedOver reports whether the machine stands still here because it is on its way with its memory.
func (mv *moveRecord) handedOver() bool {
	return mv != nil && mv.Send != nil && mv.Frozen && mv.Ending == "" && mv.Moved == 0
}

// taking reports whether there is, or is to be, a VM that does not execute yet.
func (r *records) taking() bool {
	t := r.target()
	return t != nil && t.Take != nil && !t.Take.Over
}

// movesLive reports whether the VMM may tell something new of a transfer.
func (r *records) movesLive() bool { return r.sending() || r.taking() }

// nextSend decides about the memory of a machine that is to move with it.
func nextSend(v view) action {
	if !v.rec.sending() {
		return action{kind: actWait}
	}
	if v.now.Before(v.sendAt) {
		return action{kind: actWait, at: v.sendAt}
	}
	return action{kind: actSend}
}

// nextTake decides about a VM that waits for its memory. Nothing else is done for the machine until it runs, or is gone.
func nextTake(v view, mv *moveRecord) action {
	t := mv.Take
	switch {
	case mv.Ending == endingAbort:
		return action{kind: actAbortTarget}
	case v.rec.Obs.Lost != nil:
		return action{kind: actTakeEnd, why: "the machine is another host's"}
	case t.Address != "" && v.vm == vmNone:
		return action{kind: actTakeEnd, why: "the VM that waited for the memory has ended"}
	case mv.adopted() && !t.Live:
		return action{kind: actTakeEnd, why: "the memory was not sent"}
	case mv.adopted() && (!mv.Cloned || v.vm == vmNone):
		return action{kind: actTakeEnd, why: "no VM waited for the memory"}
	case mv.adopted():
		return action{kind: actResume}
	case t.Address == "":
		return action{kind: actTake}
	}
	return action{kind: actWait}
}
