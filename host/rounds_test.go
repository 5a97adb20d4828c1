package host

import (
	"fmt"
	"testing"
	"time"

	"drover"
)

func TestALateMoveThereAndBack(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, req := twoHosts(w)
		w.twice = true
		for _, pair := range [][2]*fakeHost{{a, b}, {b, a}} {
			mv := newMover(w, pair[0], pair[1], req)
			mv.rounds = 3
			moved, err := mv.run()
			if err != nil || !moved {
				t.Fatalf("moved %v, %v", moved, err)
			}
			mv.settled(pair[1])
			req.Epoch = mv.epoch
		}
	}, "a", "b")
}

func TestAbortAtEachStepOfALateMove(t *testing.T) {
	for steps := range 8 {
		t.Run(fmt.Sprint(steps), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b, req := twoHosts(w)
				mv := newMover(w, a, b, req)
				mv.rounds = 2
				for _, step := range mv.before()[:steps] {
					if err := step(); err != nil {
						t.Fatal(err)
					}
				}
				if err := mv.abort(); err != nil {
					t.Fatal(err)
				}
				mv.settled(a)
			}, "a", "b")
		})
	}
}

// An abort that was at the rounds' copies when it turned out that the machine had been handed over: everything is fetched.
func TestATargetWhoseRoundsAreGoneFetchesEverything(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, req := twoHosts(w)
		mv := newMover(w, a, b, req)
		mv.rounds = 2
		mv.toSwitch()
		b.sess.mu.Lock()
		b.sess.fail["delete"] = drover.Errorf(drover.Unavailable, "not now")
		b.sess.mu.Unlock()
		m := b.agent.known("m1")
		if err := m.endMove(mv.mig, "by the test"); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		mv.commit()
		if err := mv.activate(); err != nil {
			t.Fatal(err)
		}
		b.sess.mu.Lock()
		clear(b.sess.fail)
		b.sess.mu.Unlock()
		for _, step := range []func() error{mv.hydrated, mv.release} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		mv.settled(b)
	}, "a", "b")
}

func TestRoundsComeInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, req := twoHosts(w)
		mv := newMover(w, a, b, req)
		for _, step := range mv.before()[:2] {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range []int{0, 2, -1} {
			_, err := order[drover.MoveExports](a, drover.OrderMoveRound, drover.MoveRoundRequest{MoveRequest: mv.id(), Round: n})
			if !drover.Is(err, drover.Precondition) && !drover.Is(err, drover.Invalid) {
				t.Errorf("round %d at first: %v", n, err)
			}
		}
		_, err := order[drover.MoveCopied](b, drover.OrderMoveCopy, drover.MoveCopyRequest{MoveRequest: mv.id(), Round: 2, Exports: mv.exports})
		if !drover.Is(err, drover.Precondition) {
			t.Errorf("the copy of round 2 at first: %v", err)
		}
		if err := mv.abort(); err != nil {
			t.Fatal(err)
		}
		mv.settled(a)
	}, "a", "b")
}
