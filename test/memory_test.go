package test

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"

	"drover"
)

// counting is a program that changes all of its memory in each round, and looks first whether everything there is what the round before has
// put there: a page of before the move is one that is seen.
const counting = `exec busybox awk 'BEGIN { for (n = 1; ; n++) {
	for (i = 0; i < 8000; i++) {
		if (n > 1 && (a[i] != (n-1)*7 + i || b[i] != a[i] "x" i)) { print "damaged at " i " in round " n; exit }
		a[i] = n*7 + i; b[i] = a[i] "x" i
	}
	print "round " n "."; fflush()
} }'`

var roundRE = regexp.MustCompile(`round (\d+)\.|damaged.*`)

// lastRound is the newest round that the program has told on the host that it is on; 0 for none. It is an error when it has found its memory damaged,
// or has begun anew.
func lastRound(t *testing.T, id drover.MachineID, before int) (last int) {
	t.Helper()
	for _, m := range roundRE.FindAllStringSubmatch(run(t, "machine", "logs", string(id)), -1) {
		if m[1] == "" {
			t.Fatalf("the machine has lost memory: %s", m[0])
		}
		last, _ = strconv.Atoi(m[1]) // the expression has digits only
	}
	if last != 0 && last < before {
		t.Fatalf("the machine was in round %d, and is in round %d", before, last)
	}
	return last
}

// A machine that changes its memory all the time finds all of it as it was, however often it moves: as fast as it can go, or slowly, so that there are
// many passes over the memory while it changes. With -soak it moves for as long.
func TestMemoryIsIntactAfterManyLiveMoves(t *testing.T) {
	t.Parallel()
	m := shell(t, newApp(t), counting, "--host", "h1")
	round := 0
	goesOn := func() { // a round that was begun before, and one
		t.Helper()
		before, first := round, 0
		eventually(t, boundBoot, "the end of a round", func() bool { first = lastRound(t, m.ID, before); return first > before })
		eventually(t, boundBoot, fmt.Sprintf("a round after %d", first), func() bool { round = lastRound(t, m.ID, first); return round > first })
	}
	goesOn()
	began := time.Now()
	for n := 0; n < 3 || time.Since(began) < *soak; n++ {
		args := []string{"machine", "move", string(m.ID), "--to", []string{"h2", "h1"}[n%2], "--live", "--switch", "early"}
		if n%3 == 1 {
			args = append(args, "--bandwidth", "64MiB")
		}
		moved := ask[drover.Migration](t, args...)
		if moved.Outcome != drover.Succeeded || !moved.Live || moved.ColdReason != "" || moved.Memory == nil {
			t.Fatalf("move %d: %+v", n, moved)
		}
		t.Logf("move %d: paused for %v, %+v", n, moved.Memory.PausedFor, *moved.Memory)
		goesOn()
	}
}
