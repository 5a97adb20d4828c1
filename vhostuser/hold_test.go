package vhostuser

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/vhostuser/vhosttest"
)

// closedLoop plays a guest that has depth requests and makes each anew when it was told of it, one every gap, to a holder, and returns how often
// it was told and in which share of the time it had nothing to do because a completion was held back.
func closedLoop(depth, requests int, gap time.Duration) (told int, idle float64) {
	var h holder
	var waited time.Duration
	began := time.Unix(0, 0)
	now, free := began, depth
	tell := func() {
		free, told = free+h.held, told+1
		h.announced(now)
	}
	for range requests {
		if free == 0 { // it waits, and nothing comes any more
			waited += h.left(now)
			now = now.Add(h.left(now))
			h.expired(now)
			tell()
		}
		if h.held > 0 && h.left(now) < gap {
			h.expired(now.Add(h.left(now)))
			tell()
		}
		free, now = free-1, now.Add(gap)
		if h.add(now) {
			tell()
		}
	}
	return told, float64(waited) / float64(now.Sub(began))
}

// A guest with one request at a time waits for none that is held back, but for a trial now and then.
func TestOneRequestAtATimeIsToldAtOnce(t *testing.T) {
	told, idle := closedLoop(1, 100_000, 10*time.Microsecond)
	if told < 99_990 || idle > 0.005 {
		t.Errorf("told %d times of 100000 requests, waited %.3f of the time for nothing", told, idle)
	}
}

// A guest that has many is told of several together, and never waits.
func TestManyRequestsAreToldTogether(t *testing.T) {
	for _, depth := range []int{16, 32} {
		if told, idle := closedLoop(depth, 100_000, 10*time.Microsecond); told > 100_000/mostHeld+10 || idle != 0 {
			t.Errorf("depth %d: told %d times of 100000 requests, waited %.3f of the time for nothing", depth, told, idle)
		}
	}
}

// With few at a time a guest hardly ever waits for what is held back.
func TestFewRequestsAreNotHeldForLong(t *testing.T) {
	for depth := 2; depth < mostHeld; depth++ {
		if told, idle := closedLoop(depth, 100_000, 10*time.Microsecond); idle > 0.015 {
			t.Errorf("depth %d: told %d times of 100000 requests, waited %.3f of the time for nothing", depth, told, idle)
		}
	}
}

// A slow guest with many is told of what fits into the time.
func TestSlowGuestsAreToldOfSomeTogether(t *testing.T) {
	if told, idle := closedLoop(32, 10_000, holdTime/2-1); told > 5_000 || idle != 0 {
		t.Errorf("told %d times of 10000 requests, waited %.3f of the time for nothing", told, idle)
	}
}

// What comes more slowly than it is worth waiting for is told at once.
func TestSlowRequestsAreToldAtOnce(t *testing.T) {
	if told, _ := closedLoop(32, 10_000, 2*holdTime); told < 9_990 {
		t.Errorf("told %d times of 10000 requests", told)
	}
}

// A ring whose goroutine has nothing to do sleeps until it is woken, and does not look at the ring in between.
func TestAnIdleRingSleeps(t *testing.T) {
	r := begin(t, 16)
	for i := range 200 { // a higher limit is tried meanwhile
		wantStatus(t, r.Write(int64(i)*512, pattern(byte(i), 512)), vhosttest.OK)
	}
	q := r.dev.queueList[0]
	for began := time.Now(); q.rest() >= 0; {
		if time.Since(began) > 20*time.Second {
			t.Fatal("the goroutine never sleeps without a limit")
		}
	}
	if rest := q.rest(); rest >= 0 {
		t.Errorf("with nothing to do the goroutine looks again after %v", rest)
	}
}

// A ring that stops tells the guest of what was held back, and its goroutine ends (which the check for leaks sees).
func TestAStoppedRingHoldsNothingBack(t *testing.T) {
	r := begin(t, 16)
	q := r.dev.queueList[0]
	q.usedMu.Lock()
	q.hold = holder{limit: mostHeld, since: time.Now().Add(time.Hour)}
	q.usedMu.Unlock()
	for r.Interrupted(0) { // that of the beginning
	}
	s := r.Slot(0, 512)
	head := r.Add(s.Chain(vhosttest.Out, 0)...)
	r.Kick()
	for r.UsedIdx() == 0 {
		runtime.Gosched()
	}
	if r.Interrupted(0) {
		t.Fatal("the completion was not held back")
	}
	r.End()
	if !r.Interrupted(0) {
		t.Error("the guest was not told of what was held back")
	}
	if got, _ := r.Await(); got != head || s.Status() != vhosttest.OK {
		t.Errorf("descriptor %d, status %d", got, s.Status())
	}
}

// A descriptor that cannot be read is reported once, and does not keep the goroutine busy.
func TestABrokenBellIsSilent(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(pipe[0]); err != nil {
		t.Fatal(err)
	}
	b, err := newBell(pipe[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := b.wait(-1); err == nil {
		t.Error("a descriptor for writing was read")
	}
	b.ring()
	if err := b.wait(-1); err != nil {
		t.Error(err)
	}
	if n, err := unix.Poll(b.fds[:], 0); n != 0 || err != nil {
		t.Errorf("there is still something to look at: %d, %v", n, err)
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
}
