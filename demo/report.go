package main

import (
	"encoding/json"
	"fmt"
	"time"
)

// report is the demo's last line. Times are of the first move, the largest of all moves where it says so.
type report struct {
	Accel string `json:"accel"`
	// InterruptionMS is the longest time between two acknowledged records around the first move, as seen from outside.
	InterruptionMS int64 `json:"interruption_ms"`
	// SwitchToRunningMS is from the change of the placement to the start of the main process on the target.
	SwitchToRunningMS int64   `json:"switch_to_running_ms"`
	VolumeBytes       int64   `json:"volume_bytes"`
	AllocatedBytes    int64   `json:"allocated_bytes"`
	CopiedBytes       int64   `json:"copied_bytes"`
	HydrateSeconds    float64 `json:"hydrate_seconds"`
	Acked             uint64  `json:"acked"`
	Lost              uint64  `json:"lost"`
	Corrupt           uint64  `json:"corrupt"`
	TwoRunners        int     `json:"two_runners"`
	Moves             int     `json:"moves"`
	// BootedBeforeCopied says that at the moment the application ran on the target some of its data was still at the source.
	BootedBeforeCopied bool    `json:"booted_before_copied"`
	InterruptionsMS    []int64 `json:"interruptions_ms"`
	PowerCutGapMS      int64   `json:"power_cut_gap_ms"`
	Seconds            float64 `json:"seconds"`
}

// verdict prints the report and turns a loss into an error.
func (s *stage) verdict() error {
	s.report.Seconds = time.Since(s.began).Round(100 * time.Millisecond).Seconds()
	line, err := json.Marshal(s.report)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "\n%s\n", line)
	if r := s.report; r.Lost != 0 || r.Corrupt != 0 || r.TwoRunners != 0 {
		return fmt.Errorf("%d records lost, %d corrupt, %d times two runners", r.Lost, r.Corrupt, r.TwoRunners)
	}
	return nil
}
