package fleet

import (
	"time"

	"drover"
)

// round is what the source does for a late switch: each leaves a layer, which goes with the migration.
func (h *fakeHost) round(b []byte) (any, error) {
	req := decode[drover.MoveRoundRequest](b)
	mv, err := h.move(req.MoveRequest, true)
	if err != nil {
		return nil, err
	}
	if req.Round != mv.round && req.Round != mv.round+1 {
		return nil, drover.Errorf(drover.Precondition, "round %d after %d", req.Round, mv.round)
	}
	out := drover.MoveExports{At: time.Now(), Changed: h.dirty(req.Round)}
	mv.round = req.Round
	for disk := range h.disksOf(req.Machine) {
		id := drover.RoundLayer(disk, req.Migration, req.Round)
		h.layers[id] = drover.LayerStatus{ID: id, Disk: disk, State: drover.LayerFrozen, Size: drover.GiB}
		out.Exports = append(out.Exports, drover.Export{Disk: disk, Layer: id, Name: string(id), Host: h.id, Allocated: h.dirty(req.Round - 1)})
		mv.addRound(id)
	}
	return out, nil
}

func (mv *fakeMove) addRound(id drover.LayerID) {
	for _, known := range mv.rounds {
		if known == id {
			return
		}
	}
	mv.rounds = append(mv.rounds, id)
}

func (h *fakeHost) disksOf(id drover.MachineID) map[drover.DiskID]bool {
	disks := map[drover.DiskID]bool{drover.RootDisk(id): true}
	for _, v := range h.machines[id].spec.Volumes {
		disks[v.ID.Disk()] = true
	}
	return disks
}

// copy is done when it is asked for the second time.
func (h *fakeHost) copy(b []byte) (any, error) {
	req := decode[drover.MoveCopyRequest](b)
	mv, err := h.move(req.MoveRequest, false)
	if err != nil {
		return nil, err
	}
	h.limit = req.Limit
	again := mv.round == req.Round
	mv.round = req.Round
	out := drover.MoveCopied{Done: again && !h.stuck, Hydration: map[drover.DiskID]drover.Hydration{}}
	for _, e := range req.Exports {
		id := drover.RoundLayer(e.Disk, req.Migration, req.Round)
		h.layers[id] = drover.LayerStatus{ID: id, Disk: e.Disk, State: drover.LayerFrozen, Size: drover.GiB}
		mv.addRound(id)
		hy := drover.Hydration{Total: e.Allocated, TotalKnown: true, Done: out.Done}
		if out.Done {
			hy.Copied = e.Allocated
		}
		out.Hydration[e.Disk] = hy
	}
	return out, nil
}

func (h *fakeHost) incoming(b []byte) (any, error) {
	req := decode[drover.MoveIncomingRequest](b)
	mv, err := h.move(req.MoveRequest, false)
	if err != nil {
		return nil, err
	}
	if req.Incarnation.Run == 0 || len(mv.clones) == 0 {
		h.t.Errorf("%s is told of %+v, and has the clones %v", h.id, req.Incarnation, mv.clones)
	}
	mv.incoming = true
	return drover.MoveIncoming{Address: string(h.id) + ":2"}, nil
}

// live pauses the machine when it is asked for the second time.
func (h *fakeHost) live(b []byte) (any, error) {
	req := decode[drover.MoveLiveRequest](b)
	mv, err := h.move(req.MoveRequest, true)
	if err != nil {
		return nil, err
	}
	memory := drover.MemoryMove{Total: drover.GiB, Transferred: 100 * drover.MiB, Rounds: 1}
	if !mv.incoming || h.stuck {
		mv.incoming = true
		return drover.MoveLive{Memory: memory}, nil
	}
	m := h.machines[req.Machine]
	if !mv.held {
		mv.held, mv.wasRunning, mv.pausedAt = true, m.running, time.Now()
	}
	m.running, mv.frozen = false, true
	memory.Transferred = drover.GiB
	return drover.MoveLive{Memory: memory, Paused: true, StoppedAt: mv.pausedAt, Allocated: map[drover.DiskID]drover.Bytes{drover.RootDisk(req.Machine): 42}}, nil
}

// undo makes layers over what was kept.
func (h *fakeHost) undo(b []byte) (any, error) {
	req := decode[drover.MoveUndoRequest](b)
	mv, err := h.move(req.MoveRequest, false)
	if err != nil {
		return nil, err
	}
	kept := h.kept[req.Undoes]
	if len(kept) == 0 {
		return nil, drover.Errorf(drover.Precondition, "nothing of migration %s is kept on %s", req.Undoes, h.id)
	}
	if len(mv.clones) == 0 {
		for _, disk := range kept {
			h.layer(disk, req.Migration)
			mv.clones = append(mv.clones, drover.LayerFor(disk, req.Migration))
		}
	}
	return drover.Empty{}, nil
}

// check finds nothing, or what the test says, or that the other host is not reached, or that what an undo needs is not kept.
func (h *fakeHost) check(b []byte) (any, error) {
	req := decode[drover.MoveCheckRequest](b)
	h.world.mu.Lock()
	dark := h.world.dark[req.Peer.ID]
	h.world.mu.Unlock()
	found := append([]drover.MoveFinding{{Check: "network", Host: h.id, OK: !dark, Text: "the way to the other host"}}, h.findings...)
	if old := h.moves[req.Undoes]; req.Undoes != "" && req.Target == h.id && len(h.kept[req.Undoes]) == 0 && (old == nil || old.ended) {
		found = append(found, drover.MoveFinding{Check: "kept", Host: h.id, Text: "nothing is kept"})
	}
	return drover.MoveChecked{Findings: found}, nil
}
