package fleet

import (
	"maps"
	"slices"
	"time"

	"drover"
)

// move returns this host's part in a migration; one that ended is refused.
func (h *fakeHost) move(r drover.MoveRequest, source bool) (*fakeMove, error) {
	mv := h.moves[r.Migration]
	if mv == nil {
		mv = &fakeMove{source: source, machine: r.Machine, left: h.polls}
		h.moves[r.Migration] = mv
	}
	if mv.ended {
		return nil, drover.Errorf(drover.Precondition, "migration %q has ended on %s", r.Migration, h.id)
	}
	return mv, nil
}

func (h *fakeHost) reserve(b []byte) (any, error) {
	req := decode[drover.MoveReserveRequest](b)
	mv, err := h.move(req.MoveRequest, false)
	if old := h.moves[req.Undoes]; err == nil && old != nil && old.source && !old.ended {
		mv.earlier, old.turned = req.Undoes, req.Migration
		h.kept[req.Undoes] = slices.Collect(maps.Keys(h.disksOf(req.Machine)))
	}
	return drover.Empty{}, err
}

func (h *fakeHost) export(b []byte) (any, error) {
	req := decode[drover.MoveExportRequest](b)
	mv, err := h.move(req.MoveRequest, true)
	if err != nil {
		return nil, err
	}
	if old := h.moves[req.Undoes]; old != nil && old.adopted && !old.ended {
		mv.earlier, old.turned = req.Undoes, req.Migration
	}
	out := drover.MoveExports{}
	if m := h.machines[req.Machine]; m.running || h.moves[req.Migration].frozen {
		out.Incarnation = &drover.Incarnation{Instance: m.spec.Machine.Instance, Run: 1, Spec: m.spec.Machine}
	}
	wanted := []drover.DiskID{drover.RootDisk(req.Machine), drover.MemoryDisk(req.Machine)}
	for _, v := range h.machines[req.Machine].spec.Volumes {
		wanted = append(wanted, v.ID.Disk())
	}
	for _, l := range h.layers {
		if slices.Contains(wanted, l.Disk) && l.State == drover.LayerReady {
			e := drover.Export{Disk: l.Disk, Layer: l.ID, Size: l.Size, Host: h.id, Name: string(l.ID), Allocated: l.Allocated}
			if l.Disk != drover.RootDisk(req.Machine) && !l.Disk.HoldsMemory() {
				e.Volume = drover.VolumeID(l.Disk)
			}
			out.Exports = append(out.Exports, e)
		}
	}
	return out, nil
}

func (h *fakeHost) clone(b []byte) (any, error) {
	req := decode[drover.MoveCloneRequest](b)
	mv, err := h.move(req.MoveRequest, false)
	if err != nil {
		return nil, err
	}
	h.adoptLayers(mv, req.Migration, req.Exports)
	return drover.Empty{}, nil
}

func (h *fakeHost) adoptLayers(mv *fakeMove, mig drover.MigrationID, exports []drover.Export) {
	for _, e := range exports {
		h.layer(e.Disk, mig)
		mv.clones = append(mv.clones, drover.LayerFor(e.Disk, mig))
	}
}

func (h *fakeHost) quiesce(b []byte) (any, error) {
	req := decode[drover.MoveRequest](b)
	mv, err := h.move(req, true)
	if err != nil {
		return nil, err
	}
	m := h.machines[req.Machine]
	if !mv.held {
		mv.held, mv.wasRunning = true, m.running
	}
	m.running = false
	m.status.State, m.status.StoppedAt = drover.StateStopped, time.Now()
	if !mv.wasRunning {
		return drover.MoveQuiesced{}, nil
	}
	return drover.MoveQuiesced{StoppedAt: m.status.StoppedAt}, nil
}

func (h *fakeHost) freeze(b []byte) (any, error) {
	req := decode[drover.MoveRequest](b)
	mv, err := h.move(req, true)
	if err != nil {
		return nil, err
	}
	if !mv.held {
		return nil, drover.Errorf(drover.Precondition, "freeze before quiesce")
	}
	mv.frozen = true
	return drover.MoveFrozen{Allocated: map[drover.DiskID]drover.Bytes{drover.RootDisk(req.Machine): 42}}, nil
}

func (h *fakeHost) activate(b []byte) (any, error) {
	req := decode[drover.MoveActivateRequest](b)
	mv, err := h.move(req.MoveRequest, false)
	if err != nil {
		return nil, err
	}
	if mv.adopted {
		return h.machines[req.Machine].status, nil
	}
	if len(mv.clones) == 0 {
		h.adoptLayers(mv, req.Migration, req.Exports)
	}
	mv.adopted, h.told = true, req.Status
	m := &fakeMachine{spec: req.Apply}
	h.machines[req.Machine] = m
	h.settle(m)
	if req.Live {
		mv.resumedAt = time.Now()
		if !mv.incoming {
			h.t.Errorf("%s is to go on with a machine of which it has no memory", h.id)
		}
	}
	return m.status, nil
}

func (h *fakeHost) progress(b []byte) (any, error) {
	req := decode[drover.MoveRequest](b)
	mv, err := h.move(req, false)
	if err != nil {
		return nil, err
	}
	if mv.turned != "" {
		return nil, drover.Errorf(drover.Precondition, "migration %s is being taken back", req.Migration)
	}
	if mv.left--; mv.earlier != "" {
		h.endEarlier(mv, req.Machine)
	}
	p := drover.MoveProgress{ResumedAt: mv.resumedAt, Done: mv.left <= 0, Hydration: map[drover.DiskID]drover.Hydration{
		drover.RootDisk(req.Machine): {Total: 100, TotalKnown: true, Copied: drover.Bytes(100 - min(99, max(mv.left, 0))), Done: mv.left <= 0}}}
	if m := h.machines[req.Machine]; m != nil {
		p.Status = m.status
	}
	if hy := p.Hydration[drover.RootDisk(req.Machine)]; mv.lost {
		hy.Lost, hy.Holes = drover.BlockSize, []drover.ByteRange{{Offset: 8192, Length: drover.BlockSize}}
		p.Hydration[drover.RootDisk(req.Machine)] = hy
	}
	if p.Done {
		h.dropRounds(mv)
	}
	return p, nil
}

func (h *fakeHost) release(b []byte) (any, error) {
	req := decode[drover.MoveRequest](b)
	if mv := h.moves[req.Migration]; mv != nil && !mv.ended {
		if mv.turned != "" {
			return nil, drover.Errorf(drover.Conflict, "migration %s is being taken back", req.Migration)
		}
		mv.ended = true
		h.dropRounds(mv)
		for disk := range h.disksOf(req.Machine) {
			if mv.earlier == "" || h.moves[mv.earlier].left <= 0 {
				h.kept[req.Migration] = append(h.kept[req.Migration], disk)
			}
		}
		h.forget(req.Machine)
	}
	return drover.Empty{}, nil
}

// endEarlier drops what was frozen for the migration that is taken back, once the machine has it again.
func (h *fakeHost) endEarlier(mv *fakeMove, machine drover.MachineID) {
	h.moves[mv.earlier].ended = true
	for id, l := range h.layers {
		if _, mine := h.disksOf(machine)[l.Disk]; mine && !slices.Contains(mv.clones, id) {
			delete(h.layers, id)
		}
	}
}

func (h *fakeHost) dropRounds(mv *fakeMove) {
	for _, id := range mv.rounds {
		delete(h.layers, id)
	}
}

// forget drops a machine that went elsewhere, with its layers.
func (h *fakeHost) forget(id drover.MachineID) {
	m := h.machines[id]
	if m == nil {
		return
	}
	if m.running {
		h.t.Errorf("%s is told to let go of machine %s, which runs there", h.id, id)
	}
	h.dropLayers(drover.RootDisk(id))
	for _, v := range m.spec.Volumes {
		h.dropLayers(v.ID.Disk())
	}
	delete(h.machines, id)
}

func (h *fakeHost) abort(b []byte) (any, error) {
	req := decode[drover.MoveRequest](b)
	mv := h.moves[req.Migration]
	if mv == nil {
		h.moves[req.Migration] = &fakeMove{machine: req.Machine, ended: true}
		return drover.Empty{}, nil
	}
	if mv.adopted {
		return nil, drover.Errorf(drover.Precondition, "machine %q is mine", req.Machine)
	}
	if mv.ended {
		return drover.Empty{}, nil
	}
	mv.ended = true
	if old := h.moves[mv.earlier]; old != nil {
		old.turned = ""
	}
	if mv.source && mv.held {
		m := h.machines[req.Machine]
		h.settle(m)
		if !mv.wasRunning {
			m.running = false
			m.status.State = drover.StateStopped
		}
	}
	for _, id := range mv.clones {
		delete(h.layers, id)
	}
	h.dropRounds(mv)
	return drover.Empty{}, nil
}

// writeOff makes the target wait for nothing more: one block is lost.
func (h *fakeHost) writeOff(b []byte) (any, error) {
	mv, err := h.move(decode[drover.MoveRequest](b), false)
	if err != nil {
		return nil, err
	}
	mv.left, mv.lost = 0, true
	return h.progress(b)
}
