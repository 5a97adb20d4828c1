package fleet

import (
	"drover"
)

// observe tells whom the host reaches: everybody who is not cut off from it.
func (h *fakeHost) observe() (list []drover.Observation) {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	for _, id := range []drover.HostID{"h1", "h2", "h3"} {
		if id != h.id {
			reached := !h.world.dark[id]
			list = append(list, drover.Observation{Host: id, Reached: reached, Since: h.world.born, Problem: map[bool]string{false: "refused"}[reached]})
		}
	}
	return list
}

// powerOff cuts the power of a host: it says nothing any more, nobody reaches it, and nothing runs on it.
func (w *world) powerOff(id drover.HostID) {
	h := w.hosts[id]
	h.halt()
	h.set(func() {
		for _, m := range h.machines {
			m.running = false
		}
	})
	w.cutOff(id, true)
}

// cutOff makes other hosts reach a host no more, or again.
func (w *world) cutOff(id drover.HostID, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dark[id] = cut
}

// powerOn brings a host back. What the placements give to others it does not start.
func (w *world) powerOn(n *node, id drover.HostID) {
	h := w.hosts[id]
	for machine := range h.machines {
		p, err := n.state.placementOf(w.t.Context(), machine)
		h.set(func() {
			m := h.machines[machine]
			if err == nil && p.Host == id && m.spec.Epoch <= p.Epoch {
				m.spec.Epoch = p.Epoch
				h.settle(m)
			} else {
				delete(h.machines, machine)
			}
		})
	}
	w.cutOff(id, false)
	h.start()
}

func (h *fakeHost) recoveryMake(b []byte) (any, error) {
	req := decode[drover.RecoveryMakeRequest](b)
	id := drover.RecoveryLayer(req.Volume.ID.Disk(), req.Recovery)
	if l, ok := h.layers[id]; ok {
		return l, nil
	}
	if req.Source.Kind == drover.FromStandby {
		s := h.standbys[req.Source.Standby]
		if s == nil || s.complete == 0 {
			return nil, drover.Errorf(drover.NotFound, "no standby %q", req.Source.Standby)
		}
	}
	l := drover.LayerStatus{ID: id, Disk: req.Volume.ID.Disk(), State: drover.LayerReady, Size: req.Volume.Size, Cipher: req.Volume.Cipher}
	if req.Source.Kind == drover.FromSnapshot {
		l.Hydration = &drover.Hydration{Total: 10}
		h.fills[id] = h.polls
	}
	h.layers[id] = l
	return l, nil
}

func (h *fakeHost) recoveryDrop(b []byte) (any, error) {
	req := decode[drover.RecoveryMakeRequest](b)
	for _, m := range h.machines {
		for _, mount := range m.spec.Machine.Config.Mounts {
			// One that came too late for another recovery of the same machine drops its own only.
			if note := m.spec.Recovery; mount.Volume == req.Volume.ID && note != nil && note.Recovery == req.Recovery {
				h.t.Errorf("%s is told to drop volume %s, which machine %s has", h.id, req.Volume.ID, m.spec.Machine.ID)
			}
		}
	}
	delete(h.layers, drover.RecoveryLayer(req.Volume.ID.Disk(), req.Recovery))
	return drover.Empty{}, nil
}

// fakeStandby is what a host has of a standby.
type fakeStandby struct {
	complete, making, polls int
}

func (h *fakeHost) standbyFreeze(b []byte) (any, error) {
	req := decode[drover.StandbyFreezeRequest](b)
	v := req.Volume.ID
	if req.Over > 0 {
		if over := drover.StandbySourceLayer(v, req.Standby, req.Over); h.layers[over].ID == "" {
			return nil, drover.Errorf(drover.NotFound, "no layer %q", over)
		}
	}
	l, err := h.freezeLayer(v, drover.StandbySourceLayer(v, req.Standby, req.Step))
	return drover.StandbyFrozen{TakenAt: h.world.time(), Export: drover.Export{Disk: v.Disk(), Volume: v, Layer: l.ID, Size: l.Size, Host: h.id}}, err
}

func (h *fakeHost) standbyRelease(b []byte) (any, error) {
	req := decode[drover.StandbyReleaseRequest](b)
	h.giveUpLayer(drover.StandbySourceLayer(req.Volume, req.Standby, req.Step))
	return drover.Empty{}, nil
}

func (h *fakeHost) standbyCopy(b []byte) (any, error) {
	req := decode[drover.StandbyCopyRequest](b)
	s := h.standbys[req.Standby]
	if s == nil {
		s = &fakeStandby{}
		h.standbys[req.Standby] = s
	}
	switch {
	case s.complete == req.Step:
		return drover.StandbyCopied{Done: true}, nil
	case req.Over != 0 && req.Over != s.complete:
		return nil, drover.Errorf(drover.NotFound, "standby %s has step %d, not %d", req.Standby, s.complete, req.Over)
	case s.making != req.Step:
		s.making, s.polls = req.Step, h.polls
	}
	if s.polls--; s.polls > 0 {
		return drover.StandbyCopied{Hydration: drover.Hydration{Total: 10, Copied: 1}}, nil
	}
	s.complete, s.making = req.Step, 0
	return drover.StandbyCopied{Hydration: drover.Hydration{Total: 10, Copied: 10, Done: true}, Done: true}, nil
}

func (h *fakeHost) standbyDrop(b []byte) (any, error) {
	delete(h.standbys, decode[drover.StandbyDropRequest](b).Standby)
	return drover.Empty{}, nil
}
