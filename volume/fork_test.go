package volume

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"drover"
)

// scribble writes to a volume until it is stopped, and returns what it then holds.
func (v *volumeUnder) scribble(seed uint64) (stop func()) {
	ctx, cancel := context.WithCancel(v.t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		for i := uint64(0); ctx.Err() == nil; i++ {
			off := int64(i*7919) % (int64(len(v.model)) - 20000)
			p := pattern(seed+i, 20000)
			if err := v.conn.WriteAt(v.t.Context(), p, off, false); err != nil {
				v.t.Errorf("write %d: %v", i, err)
				return
			}
			copy(v.model[off:], p)
		}
	})
	return func() { cancel(); group.Wait() }
}

// A fork on the same host has exactly the moment, is written at once, and needs its source no more when it is filled.
func TestForkOnTheSameHost(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	v := newVolumeUnder(t, h, "vol_a", 6*mib)
	v.write(1, 0, 3*mib)
	v.write(2, 5*mib, 1000)
	v.split("vol_a.s0") // the frozen layer has one below it
	v.write(3, mib, 5000)
	v.discard(2*mib, 100000)
	moment := slices.Clone(v.model)
	s := v.split("vol_a.s1")
	stop := v.scribble(100)
	spec := drover.LayerSpec{ID: "vol_f", Disk: "vol_f", Size: 8 * drover.MiB,
		Parent: &drover.Export{Disk: "vol_a", Layer: "vol_a.s1", Size: s.Size, Host: "h1", Allocated: s.Allocated}}
	must[drover.LayerStatus](t)(h.CreateLayer(ctx, spec))
	must[drover.LayerStatus](t)(h.CreateLayer(ctx, spec))
	noErr(t, h.CheckParent(ctx, "vol_f"))
	f := &volumeUnder{t: t, h: h, id: "vol_f", conn: h.open("vol_f", 1), model: append(slices.Clone(moment), make([]byte, 2*mib)...)}
	f.check()
	f.write(5, 2*mib-100, 2*mib)
	f.write(6, 7*mib, 3*blockSize+9)
	noErr(t, h.Delete(ctx, "vol_x"))
	wantCode(t, h.Thaw(ctx, "vol_a.s1"), drover.Precondition)
	noErr(t, h.Hydrate(ctx, "vol_f", 0))
	h.hydrated("vol_f")
	stop()
	f.check()
	v.check()
	holds(t, h.dial("vol_a.s1"), moment)
	h.halt()
	h.start()
	f.conn, v.conn = h.dial("vol_f@1"), h.dial("vol_a@1")
	f.check()
	v.check()
	h.tidy()
}

// A frozen layer cannot go while a fork is filled from it; the refusal names the fork.
func TestForkKeepsItsSource(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	v := newVolumeUnder(t, h, "vol_a", mib)
	v.write(1, 0, mib)
	s := v.split("vol_a.s")
	parent := &drover.Export{Layer: "vol_a.s", Size: s.Size, Host: "h1"}
	must[drover.LayerStatus](t)(h.CreateLayer(ctx, drover.LayerSpec{ID: "vol_f", Disk: "vol_f", Size: s.Size, Parent: parent}))
	noErr(t, h.Close(ctx, "vol_a"))
	noErr(t, h.Delete(ctx, "vol_a"))
	err := h.Delete(ctx, "vol_a.s")
	wantCode(t, err, drover.Precondition)
	if !strings.Contains(err.Error(), "vol_f") {
		t.Errorf("the refusal does not name the fork: %v", err)
	}
	noErr(t, h.Hydrate(ctx, "vol_f", 0))
	h.hydrated("vol_f")
	noErr(t, h.Delete(ctx, "vol_a.s"))
	f := &volumeUnder{t: t, h: h, id: "vol_f", conn: h.open("vol_f", 1), model: v.model}
	f.check()
	h.tidy()
}

func TestForkRefusals(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	h.create("vol_a", drover.MiB)
	must[drover.LayerStatus](t)(h.Split(t.Context(), "vol_a", "vol_a.s"))
	for name, c := range map[string]struct {
		parent drover.Export
		code   drover.Code
	}{
		"unknown":      {drover.Export{Layer: "x", Size: drover.MiB, Host: "h1"}, drover.NotFound},
		"not frozen":   {drover.Export{Layer: "vol_a", Size: drover.MiB, Host: "h1"}, drover.Precondition},
		"other size":   {drover.Export{Layer: "vol_a.s", Size: drover.MiB / 2, Host: "h1"}, drover.Invalid},
		"parent large": {drover.Export{Layer: "vol_a.s", Size: 4 * drover.MiB, Host: "h1"}, drover.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.CreateLayer(t.Context(), drover.LayerSpec{ID: "vol_f", Disk: "vol_f", Size: 2 * drover.MiB, Parent: &c.parent})
			wantCode(t, err, c.code)
		})
	}
	h.tidy()
}

// The source's volume goes on while a fork on another host is filled from the frozen layer.
func TestForkOnAnotherHostHasTheMoment(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	v := newVolumeUnder(t, h1, "vol_a", 6*mib)
	v.write(1, 0, 5*mib)
	v.split("vol_a.s0")
	v.discard(mib, mib)
	v.write(2, 2*mib-9, 70000)
	moment := slices.Clone(v.model)
	v.split("vol_a.s1")
	stop := v.scribble(1000)
	e := h1.export("vol_a.s1", "h2")
	must[drover.LayerStatus](t)(h2.CreateLayer(t.Context(), drover.LayerSpec{ID: "vol_f", Disk: "vol_f", Size: 7 * drover.MiB, Parent: e}))
	f := &volumeUnder{t: t, h: h2, id: "vol_f", conn: h2.open("vol_f", 1), model: append(slices.Clone(moment), make([]byte, mib)...)}
	f.write(3, 4*mib, mib+blockSize)
	f.check()
	noErr(t, h2.Hydrate(t.Context(), "vol_f", 0))
	h2.hydrated("vol_f")
	stop()
	noErr(t, h1.Unexport(t.Context(), "vol_a.s1", "h2"))
	f.check()
	v.check()
	h1.tidy()
	h2.tidy()
}
