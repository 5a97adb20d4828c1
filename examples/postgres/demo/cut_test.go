package main

import (
	"testing"

	"drover"
)

func TestASeedSaysWhichHostLosesItsPowerWhen(t *testing.T) {
	hosts := []drover.HostID{"h1", "h2", "h3", "h4"}
	if c := cutOf(0, hosts); c != (cut{drain: 2}) {
		t.Errorf("without a seed: %v", c)
	}
	drains, victims := map[int]int{}, map[drover.HostID]int{}
	for seed := range uint64(200) {
		c := cutOf(seed+1, hosts)
		if again := cutOf(seed+1, hosts); again != c {
			t.Fatalf("seed %d: %v, then %v", seed+1, c, again)
		}
		drains[c.drain]++
		victims[c.host]++
	}
	if len(drains) != 3 || drains[1] == 0 || drains[3] == 0 || len(victims) != len(hosts)+1 || victims[""] < 30 {
		t.Errorf("drains %v, hosts %v", drains, victims)
	}
}
