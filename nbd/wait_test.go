package nbd

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A reader polls longer as long as what comes comes soon, and stops at once when it does not: polling is for clients with a request in flight only.
func TestPollingIsForWhoAnswersSoon(t *testing.T) {
	var w wait
	for i, step := range []struct{ slept, limit time.Duration }{
		{20 * time.Microsecond, pollLeast},
		{20 * time.Microsecond, 2 * pollLeast},
		{20 * time.Microsecond, 4 * pollLeast},
		{20 * time.Microsecond, 8 * pollLeast},
		{20 * time.Microsecond, pollMost},
		{0, pollMost},
		{time.Microsecond, 0}, // it was polled for all the time that is worth it
		{time.Second, 0},
		{pollMost, pollLeast},
		{pollMost, 0},
	} {
		if w.learn(step.slept); w.limit != step.limit {
			t.Fatalf("step %d: after %v of sleep the limit is %v, not %v", i, step.slept, w.limit, step.limit)
		}
	}
}

// What came is read, and the end is left to the read that waits.
func TestAPollReadsWhatIsThere(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	w, p := wait{limit: time.Hour}, make([]byte, 8)
	if _, err := unix.Write(pair[1], []byte("abc")); err != nil {
		t.Fatal(err)
	}
	if n := w.poll(pair[0], p); string(p[:n]) != "abc" {
		t.Errorf("%d bytes: %q", n, p[:n])
	}
	idle := wait{limit: time.Microsecond}
	if n := idle.poll(pair[0], p); n != 0 {
		t.Errorf("%d bytes of nothing", n)
	}
	if err := unix.Close(pair[1]); err != nil {
		t.Fatal(err)
	}
	if n := w.poll(pair[0], p); n != 0 {
		t.Errorf("%d bytes after the end", n)
	}
}
