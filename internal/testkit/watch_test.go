package testkit

import "testing"

// say gives a watch lines as it would read them.
func say(w *Watch, lines ...string) Seen {
	for _, l := range lines {
		w.line(l)
	}
	return w.Now()
}

func TestAWatchIsNotFooledByTheOrderOfReading(t *testing.T) {
	// The last line of the source is read after the first ones of the target.
	got := say(NewWatch("", "m"), "BOOT a 0 0", "ACK 1 a", "BOOT b 2 0", "ACK 3 b", "ACK 2 a", "ACK 4 b")
	if got.TwoRunners != 0 || got.Lost != 0 || got.Acked != 4 || got.Boot != "b" {
		t.Errorf("%+v", got)
	}
}

func TestAWatchSeesTwoRunners(t *testing.T) {
	got := say(NewWatch("", "m"), "BOOT a 0 0", "ACK 1 a", "BOOT b 1 0", "ACK 2 b", "ACK 2 a", "ACK 3 b")
	if got.TwoRunners != 1 {
		t.Errorf("%+v", got)
	}
}

func TestAWatchSeesLostRecords(t *testing.T) {
	got := say(NewWatch("", "m"), "BOOT a 0 0", "ACK 1 a", "ACK 2 a", "ACK 3 a", "BOOT b 1 0", "ACK 2 b", "CORRUPT record 1")
	if got.Lost != 2 || got.TwoRunners != 0 || got.Acked != 2 || len(got.Corrupt) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestAVMThatReceivesIsNotARunnerYet(t *testing.T) {
	if !receives([]byte("qemu-system-x86_64\x00-incoming\x00defer\x00")) || receives([]byte("qemu-system-x86_64\x00-name\x00guest=m-incoming\x00")) {
		t.Error("told wrongly")
	}
}
