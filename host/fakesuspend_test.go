package host

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"

	"drover"
)

// fakeState is how much a fake VM writes of its state: which life it is of, and how often that life had gone on from a disk before.
const fakeState = 3 * memoryChunk / 2

func (v sessionVM) SaveBlocker(context.Context) (string, error) {
	return v.plan.blocker, v.s.look(func() error { return nil })
}

// Save stands the VM still and writes its state, in two parts between which it can be cut.
func (v sessionVM) Save(_ context.Context, w io.Writer) error {
	var state []byte
	if err := v.s.effect("vm-save", func() error {
		if v.h.vms[v.spec.Machine] != v.fakeVM {
			return drover.Errorf(drover.Unavailable, "the VM is gone")
		}
		v.still = true
		state = binary.BigEndian.AppendUint64(nil, uint64(v.life))
		state = append(state, v.bootName()...)
		return nil
	}); err != nil {
		return err
	}
	for len(state) < fakeState {
		state = append(state, '.')
	}
	if _, err := w.Write(state[:fakeState/2]); err != nil {
		return err
	}
	if err := v.s.effect("vm-save-rest", func() error { return nil }); err != nil {
		return err
	}
	_, err := w.Write(state[fakeState/2:])
	return err
}

// Load takes the state.
func (v sessionVM) Load(_ context.Context, r io.Reader) error {
	state, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return v.s.effect("vm-load", func() error {
		if v.h.hollow || len(state) != fakeState {
			return drover.Errorf(drover.Precondition, "the state is of no use")
		}
		v.life = int(binary.BigEndian.Uint64(state))
		v.boot, _, _ = strings.Cut(string(state[8:]), ".")
		v.main, v.move.state = true, drover.TransferDone
		return nil
	})
}

// runsNow checks that the disks are those that the guest knows, and notes that it has them now. A life that goes on from its memory becomes
// another one: to go on from the same memory a second time is to go on with disks that were written since.
func (vm *fakeVM) runsNow() {
	w, id := vm.h.w, vm.spec.Machine
	resumed := vm.spec.Incoming && vm.move.from == ""
	if had := vm.h.lifeOf[id]; resumed && had != vm.life {
		w.t.Errorf("machine %s goes on on %s with the memory of its life %d, and life %d has written to its disks since", id, vm.h.id, vm.life, had)
	}
	w.lives++
	vm.life = w.lives
	for _, h := range w.host { // the disks go with the machine
		h.lifeOf[id] = vm.life
	}
	for _, l := range vm.h.layers {
		if l.status.Writer == 0 || machineOf(w, l.spec.Disk) != id {
			continue
		}
		if resumed && l.lost {
			w.t.Errorf("machine %s goes on on %s, and a power cut took what it had written to layer %s", id, vm.h.id, l.spec.ID)
		}
		l.dirty, l.lost = true, false
	}
}

// read returns what is durable of the layer, here or where it was cloned from.
func (l *fakeLayer) read(w *world) map[int64][]byte {
	for l != nil && l.data == nil && l.spec.Parent != nil {
		l = w.host[l.spec.Parent.Host].layers[l.spec.Parent.Layer]
	}
	if l == nil {
		return nil
	}
	return l.data
}

// flush makes durable what was written.
func (l *fakeLayer) flush() {
	for off, p := range l.fresh {
		if l.data == nil {
			l.data = map[int64][]byte{}
		}
		l.data[off] = p
	}
	l.fresh, l.dirty = nil, false
}

func (g fakeGuest) SetClock(context.Context, time.Time) error {
	return g.s.effect("guest-clock", func() error {
		if g.vm.plan.old {
			return drover.Errorf(drover.Precondition, "the guest knows no clock")
		}
		g.vm.h.clockSet++
		return nil
	})
}

func (f fakeFiles) ReportsEnd(path string, offset int64) (n int64, err error) {
	err = f.s.look(func() error { n = min(offset, int64(len(f.s.h.reports[path]))); return nil })
	return n, err
}

// fakeData is a connection to a layer at an epoch.
type fakeData struct {
	s     *session
	id    drover.LayerID
	epoch drover.Epoch
}

func (s *session) layerDial(at Attachment) (LayerData, error) {
	id, epoch, _ := strings.Cut(at.Export, "@")
	d := &fakeData{s: s, id: drover.LayerID(id)}
	if _, err := fmt.Sscan(epoch, &d.epoch); err != nil {
		return nil, drover.Errorf(drover.Invalid, "no export %q", at.Export)
	}
	return d, s.look(func() error { _, err := d.layer(); return err })
}

// layer returns the layer while it is open for the connection.
func (d *fakeData) layer() (*fakeLayer, error) {
	l := d.s.h.layers[d.id]
	if l == nil || l.status.Writer != d.epoch {
		return nil, drover.Errorf(drover.Unavailable, "the connection to layer %q was ended", d.id)
	}
	return l, nil
}

func (d *fakeData) WriteAt(_ context.Context, p []byte, off int64, _ bool) error {
	return d.s.effect("write-layer", func() error {
		l, err := d.layer()
		switch {
		case err != nil:
			return err
		case d.s.h.full:
			return drover.Errorf(drover.Exhausted, "the disk is full")
		case off+int64(len(p)) > int64(l.spec.Size):
			return drover.Errorf(drover.Invalid, "past the end of layer %q", d.id)
		}
		if l.fresh == nil {
			l.fresh = map[int64][]byte{}
		}
		l.fresh[off] = append([]byte(nil), p...)
		return nil
	})
}

// ReadAt reads what was written at the same offset, here or where the layer was cloned from.
func (d *fakeData) ReadAt(_ context.Context, p []byte, off int64) error {
	return d.s.look(func() error {
		l, err := d.layer()
		if err != nil {
			return err
		}
		clear(p)
		if copy(p, l.fresh[off]) == 0 {
			copy(p, l.read(d.s.h.w)[off])
		}
		return nil
	})
}

func (d *fakeData) Flush(context.Context) error {
	return d.s.effect("flush-layer", func() error {
		l, err := d.layer()
		if err == nil {
			l.flush()
		}
		return err
	})
}

func (d *fakeData) Close() error { return nil }
