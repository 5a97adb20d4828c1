package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"drover/dev/chaos"
)

// TestChaos breaks a fleet of its own at random. The short run has one plan and the faults that are quickest to recover from; 'make soak' makes a
// long one with all of them and another plan each time.
func TestChaos(t *testing.T) {
	args := []string{"dev", "chaos", "--hosts", "2", "--machines", "2", "--seed", "5", "--seconds", "20", "--pace", "4s", "--faults", "kill,power,pair,clock"}
	if *soak > 0 {
		args = []string{"dev", "chaos", "--seconds", fmt.Sprint(int(soak.Seconds()))}
		if *walkSeed > 0 {
			args = append(args, "--seed", fmt.Sprint(*walkSeed))
		}
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
	if report.Faults == 0 || report.Moves == 0 || report.Acked == 0 {
		t.Errorf("nothing was tested: %+v", report)
	}
}
