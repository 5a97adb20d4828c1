package units

import (
	"math"
	"testing"
	"time"

	"drover"
)

func TestSize(t *testing.T) {
	for want, b := range map[string]drover.Bytes{"0 B": 0, "1 KiB": 1024, "1.50 KiB": 1536, "23.5 MiB": 24641536, "617 MiB": 617 << 20, "1.00 GiB": 1<<30 - 1,
		"8192 PiB": math.MaxInt64, "-1 KiB": -1024} {
		if got := Size(b); got != want {
			t.Errorf("%d: %q, want %q", b, got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for want, d := range map[string]time.Duration{"0 ms": 0, "999 ms": 999 * time.Millisecond, "2.90 s": 2900 * time.Millisecond, "1m05s": 65 * time.Second,
		"3h00m": 3 * time.Hour, "-4 ms": -4 * time.Millisecond, "2562047h47m": math.MaxInt64, "-2562047h47m": math.MinInt64} {
		if got := Duration(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
}

func TestClockIsUTC(t *testing.T) {
	at := time.Date(2026, 3, 1, 14, 0, 0, 7_000_000, time.FixedZone("", 2*3600))
	if got := Clock(at); got != "12:00:00.007" {
		t.Error(got)
	}
}
