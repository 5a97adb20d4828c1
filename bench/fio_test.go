package main

import (
	"testing"
	"time"
)

func TestParseFioTakesTheOneJob(t *testing.T) {
	got, err := parseFio([]byte(`note: something
{"jobs": [{"read": {"total_ios": 0}, "write": {"total_ios": 7, "iops": 3.5, "clat_ns": {"percentile": {"50.000000": 1000, "99.000000": 9000}}}}]}`))
	want := fioOutcome{iops: 3.5, p50: time.Microsecond, p99: 9 * time.Microsecond}
	if err != nil || got != want {
		t.Errorf("got %+v and %v, want %+v", got, err, want)
	}
}

func TestParseFioRefusesWhatIsNoResult(t *testing.T) {
	for _, out := range []string{"", "fio: failed", `{`, `{"jobs": []}`, `{"jobs": [{"read": {}, "write": {}}]}`} {
		if got, err := parseFio([]byte(out)); err == nil {
			t.Errorf("%q gives %+v", out, got)
		}
	}
}
