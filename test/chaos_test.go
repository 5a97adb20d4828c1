package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"drover/dev/chaos"
)

// TestChaos breaks a fleet of its own at random, with another plan each time: a part of 'make soak'.
func TestChaos(t *testing.T) {
	if *soak == 0 {
		t.Skip("make soak")
	}
	args := []string{"dev", "chaos", "--seconds", fmt.Sprint(int(soak.Seconds()))}
	if *walkSeed > 0 {
		args = append(args, "--seed", fmt.Sprint(*walkSeed))
	}
	var out bytes.Buffer
	err := fleet.cli.Run(t.Context(), &out, args...)
	var report chaos.Report
	if jerr := json.Unmarshal(out.Bytes(), &report); jerr != nil {
		t.Fatalf("%v: no report but %q (%v)", err, out.String(), jerr)
	}
	t.Logf("%+v", report)
	if err != nil {
		t.Error(err)
	}
	// A drain takes its time to end by itself; that none does in ten minutes is no chance.
	if report.Faults == 0 || report.Moves == 0 || report.Acked == 0 || report.Drains == 0 && *soak >= 10*time.Minute {
		t.Errorf("nothing was tested: %+v", report)
	}
}
