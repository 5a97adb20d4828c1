package fault

import (
	"testing"
	"time"
)

func points(t *testing.T) (*Points, string) {
	t.Helper()
	dir := t.TempDir()
	return FromEnv(func(name string) string { return map[string]string{EnvDir: dir}[name] }), dir
}

func TestAHeldProcessGoesOnWhenItIsReleased(t *testing.T) {
	p, dir := points(t)
	if err := Arm(dir, "a.b", "hold"); err != nil {
		t.Fatal(err)
	}
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		p.Hit("a.b")
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !Held(dir, "a.b") {
		<-tick.C
	}
	select {
	case <-passed:
		t.Fatal("it went on by itself")
	default:
	}
	for range 2 {
		if err := Release(dir, "a.b"); err != nil {
			t.Fatal(err)
		}
	}
	<-passed
	p.Hit("a.b") // a fault strikes once
}

func TestAReleaseDisarms(t *testing.T) {
	p, dir := points(t)
	if err := Arm(dir, "a.b", "process"); err != nil {
		t.Fatal(err)
	}
	if err := Release(dir, "a.b"); err != nil {
		t.Fatal(err)
	}
	p.Hit("a.b")
	if err := Arm(dir, "a.b", "flood"); err == nil {
		t.Error("a kind that does not exist was armed")
	}
}

func TestClockSteps(t *testing.T) {
	p, dir := points(t)
	if (*Points)(nil).Clock() != nil {
		t.Error("a process without faults has a clock of its own")
	}
	for _, step := range []time.Duration{time.Hour, -time.Hour, 0} {
		if err := SetClock(dir, step); err != nil {
			t.Fatal(err)
		}
		if got := ClockOffset(dir); got != step {
			t.Errorf("the offset is %s, want %s", got, step)
		}
		off := time.Until(p.Clock()())
		if (off - step).Abs() > time.Minute {
			t.Errorf("a clock that was set %s off is %s off", step, off)
		}
	}
}
