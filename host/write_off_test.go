package host

import (
	"testing"
	"time"

	"drover"
)

// The source of a move is lost while the data is on the way. The target gives up what had not come, whatever dies meanwhile, and waits for nothing more; a source that comes
// back after all lets go.
func TestACrashAtEveryStepOfWritingASourceOff(t *testing.T) {
	eachCut(t, func(t *testing.T, w *world, victim drover.HostID, power bool, k int) bool {
		there := halfMoved(w, 0)
		there.src.down()
		if victim == "a" {
			return false // it is down
		}
		h := w.host[victim]
		h.power = power
		h.cut(k)
		s := h.sess
		there.writtenOff()
		s.mu.Lock()
		defer s.mu.Unlock()
		walked(t, k, s.where)
		return s.dead && s.where != ""
	})
}

// writtenOff gives the source up, which is down, and lets it come back.
func (mv *mover) writtenOff() {
	mv.w.t.Helper()
	for range 2 {
		p, err := press[drover.MoveProgress](mv.dst, drover.OrderMoveWriteOff, mv.id())
		if err != nil {
			mv.w.t.Fatal(err)
		}
		for disk, hy := range p.Hydration {
			if !hy.Done || len(hy.Holes) == 0 {
				mv.w.t.Errorf("disk %s: %+v", disk, hy)
			}
		}
	}
	if err := mv.hydrated(); err != nil {
		mv.w.t.Fatal(err)
	}
	mv.src.up(0)
	if err := mv.release(); err != nil {
		mv.w.t.Fatal(err)
	}
	mv.record(drover.Succeeded)
	mv.settled(mv.dst)
}

func TestNothingIsWrittenOffOfAnotherMigration(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, req := twoHosts(w)
		mv := newMover(w, a, b, req)
		mv.toSwitch()
		// Before the switch the machine is its source's.
		if _, err := order[drover.MoveProgress](b, drover.OrderMoveWriteOff, mv.id()); !drover.Is(err, drover.Precondition) {
			t.Errorf("before the switch: %v", err)
		}
		mv.commit()
		for _, step := range []func() error{mv.activate, mv.hydrated, mv.release} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := order[drover.MoveProgress](b, drover.OrderMoveWriteOff, drover.MoveRequest{Migration: "mig_other", Machine: "m1"}); !drover.Is(err, drover.Precondition) {
			t.Errorf("of another migration: %v", err)
		}
		pass(time.Minute)
	}, "a", "b")
}
