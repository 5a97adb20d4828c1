package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTheRecorderKnowsWhatIsMissingAndHowLongNothingCame(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	r := newRecorder()
	r.ack(1, now)
	r.ack(3, now.Add(700*time.Millisecond))
	r.ack(2, now.Add(900*time.Millisecond))
	if gap, ever := r.gaps(now.Add(time.Second)); gap.String() != "700 ms from 12:00:00.000" || ever != gap {
		t.Errorf("the gap is %v, the longest ever %v", gap, ever)
	}
	r.mark()
	if gap, ever := r.gaps(now.Add(time.Second)); gap.took != 100*time.Millisecond || ever.took != 700*time.Millisecond {
		t.Errorf("after a mark the gap is %v, the longest ever %v", gap, ever)
	}
	// What is not over counts as long as it is.
	if gap, ever := r.gaps(now.Add(4 * time.Second)); gap.String() != "3100 ms from 12:00:00.900" || ever != gap {
		t.Errorf("the gap is %v, the longest ever %v", gap, ever)
	}
	lost := r.missing(map[int64]bool{1: true, 9: true})
	slices.Sort(lost)
	if !slices.Equal(lost, []int64{2, 3}) || r.total() != 3 {
		t.Errorf("%v of %d are lost", lost, r.total())
	}
	if err := r.read(strings.NewReader("ack 7\nack 8\n"), time.Now); err != nil || r.total() != 5 {
		t.Errorf("%d, %v", r.total(), err)
	}
	if err := r.read(strings.NewReader("ack 9\nnack 10\n"), time.Now); err == nil {
		t.Error("a line that is none was taken")
	}
}

func TestACluster(t *testing.T) {
	for text, want := range map[string]string{
		"1,0,1\n2,0,0\n\n3,0,1\n4,0,1\n": "",
		"1,0,1\n2,0,1\n3,0,1\n4,0,1\n":   "4 nodes of 4, 0 primaries",
		"1,0,0\n2,0,0\n3,0,1\n4,0,1\n":   "4 nodes of 4, 2 primaries",
		"1,0,1\n2,0,0\n3,0,1\n":          "3 nodes of 4, 1 primaries",
		"1,-1,-1\n2,0,0\n3,0,1\n4,0,1\n": "node 1 is not reached",
	} {
		nodes, err := parseCluster(text)
		if err != nil || sick(nodes, 4) != want {
			t.Errorf("%q: %q, %v", text, sick(nodes, 4), err)
		}
	}
	if _, err := parseCluster("WARNING: something\n"); err == nil {
		t.Error("a warning was taken for a node")
	}
}
