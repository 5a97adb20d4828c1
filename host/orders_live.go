package host

import (
	"context"
	"time"

	"drover"
	"drover/boltstore"
)

// liveAnswer is how long the order to send the memory waits for something to tell.
const liveAnswer = time.Second

// moveIncoming starts a VM that waits for the memory, and answers when it does.
func (a *Agent) moveIncoming(ctx context.Context, req drover.MoveIncomingRequest) (drover.MoveIncoming, error) {
	var answer drover.MoveIncoming
	if err := checkMoveRequest(req.MoveRequest); err != nil {
		return answer, err
	}
	if err := a.checkIncoming(req); err != nil {
		return answer, err
	}
	m, err := a.machine(req.Machine)
	if err != nil {
		return answer, err
	}
	m.asked()
	a.hit("host.incoming.before")
	err = m.order(func(r *records, tx *boltstore.Tx) error {
		if err := checkEnded(tx, req.Migration); err != nil {
			return err
		}
		mv := r.target()
		switch {
		case mv == nil || mv.Migration != req.Migration || !mv.Cloned:
			return drover.Errorf(drover.Precondition, "machine %q: host %q has no clones for migration %s", req.Machine, a.cfg.ID, req.Migration).
				WithHint("the order to clone comes first")
		case mv.Ending != "" || mv.adopted():
			return drover.Errorf(drover.Canceled, "migration %s is past that on host %q", req.Migration, a.cfg.ID)
		case mv.Take == nil:
			mv.Take = &takeRecord{Source: req.Source, Incarnation: req.Incarnation}
		}
		return nil
	})
	if err != nil {
		return answer, err
	}
	a.hit("host.incoming.after")
	err = m.await(ctx, func(r *records) (bool, error) {
		mv := r.target()
		switch {
		case mv == nil || mv.Migration != req.Migration || mv.Ending != "" || mv.Take == nil:
			return false, drover.Errorf(drover.Canceled, "migration %s was ended on host %q", req.Migration, a.cfg.ID)
		case mv.Take.ColdReason != "":
			return false, drover.Errorf(drover.Precondition, "machine %q cannot move to host %q with its memory: %s", req.Machine, a.cfg.ID,
				mv.Take.ColdReason).WithHint("move it cold")
		}
		answer.Address = mv.Take.Address
		return answer.Address != "", nil
	}, actTake)
	return answer, err
}

// checkIncoming refuses what this host cannot take.
func (a *Agent) checkIncoming(req drover.MoveIncomingRequest) error {
	switch inc := req.Incarnation; {
	case req.Source == "" || req.Source == a.cfg.ID:
		return drover.Errorf(drover.Invalid, "machine %q cannot come from host %q", req.Machine, req.Source).WithField("source")
	case inc.Spec.ID != req.Machine, inc.Boot == "", inc.CPUs <= 0, inc.MemoryMB <= 0:
		return drover.Errorf(drover.Invalid, "the order does not describe the VM of machine %q", req.Machine).WithField("incarnation")
	case a.diskTransport(inc.Spec) == drover.TransportNBD:
		return drover.Errorf(drover.Precondition, "machine %q cannot move with its memory: its disks are attached over %s", req.Machine, drover.TransportNBD).
			WithHint("move it cold, or use the disk transport %s", drover.TransportVhost)
	}
	return nil
}

// diskTransport is how the disks of a machine are attached here.
func (a *Agent) diskTransport(spec drover.Machine) drover.Transport {
	return drover.ChooseTransport(spec.Config.WithDefaults().Guest.DiskTransport, a.cfg.DiskTransport)
}

// moveLive sends the memory, or follows how far that is. It answers as soon as all of the machine's state is at the target, and in between
// from time to time. Precondition when the memory does not move; the machine runs on then, or will when the migration is aborted.
func (a *Agent) moveLive(ctx context.Context, req drover.MoveLiveRequest) (drover.MoveLive, error) {
	m, err := a.askedToSend(req)
	if err != nil {
		return drover.MoveLive{}, err
	}
	var answer drover.MoveLive
	wait, cancel := context.WithTimeout(ctx, liveAnswer)
	defer cancel()
	err = m.await(wait, func(r *records) (bool, error) {
		mv := r.source()
		if mv == nil || mv.Migration != req.Migration || mv.Ending == endingAbort || mv.Send == nil {
			return false, drover.Errorf(drover.Canceled, "migration %s was ended on host %q", req.Migration, a.cfg.ID)
		}
		why := mv.Send.Failed
		if why == "" && !mv.Send.Done && (!r.Obs.VM.Live || r.Obs.VM.Launch != mv.Send.Launch) {
			why = "its VM has ended meanwhile"
		}
		if why != "" {
			return false, drover.Errorf(drover.Precondition, "machine %q does not move with its memory: %s", req.Machine, why).
				WithHint("move it cold, or ask for a new move")
		}
		answer = drover.MoveLive{Memory: mv.Send.Memory, Paused: mv.Send.Done, Allocated: mv.Allocated, Handover: mv.Send.Handover}
		if answer.Paused {
			answer.StoppedAt = mv.StoppedAt
		} else if sent := m.sent.Load(); sent != nil {
			answer.Memory = *sent
		}
		return answer.Paused, nil
	})
	if wait.Err() != nil && ctx.Err() == nil && drover.Is(err, drover.Unavailable) {
		err = nil // it goes on
	}
	return answer, err
}

// askedToSend stores the order, the first time.
func (a *Agent) askedToSend(req drover.MoveLiveRequest) (*machine, error) {
	if m, err := a.machine(req.Machine); err == nil {
		if mv := m.rec.Load().source(); mv != nil && mv.Migration == req.Migration && mv.Send != nil && mv.Ending == "" {
			m.asked()
			return m, nil
		}
	}
	a.hit("host.live.before")
	m, err := a.sourceOrder(req.MoveRequest, func(r *records, _ *boltstore.Tx, mv *moveRecord) error {
		switch vm := r.Obs.VM; {
		case mv.Send != nil:
			return nil
		case !mv.Exported || req.Target != mv.Target:
			return drover.Errorf(drover.Precondition, "machine %q is not exported to host %q", req.Machine, req.Target).WithHint("the order to export comes first")
		case mv.Hold || mv.Frozen:
			return drover.Errorf(drover.Precondition, "machine %q is stopped for migration %s already", req.Machine, req.Migration)
		case !vm.Live || !vm.MainStarted || !vm.StopAt.IsZero() || vm.Killed != "" || vm.Exit != nil:
			return drover.Errorf(drover.Precondition, "machine %q does not run: it has no memory to move", req.Machine).WithHint("move it cold")
		}
		mv.Send = &sendRecord{Address: req.Address, Bandwidth: req.Bandwidth, Launch: r.Obs.VM.Launch, AskedAt: a.now()}
		return nil
	})
	a.hit("host.live.after")
	return m, err
}
