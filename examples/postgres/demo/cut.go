package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"drover"
)

// cut is when which host loses its power, in the variant powercut.
type cut struct {
	// drain is the number of the drain in which it does, the first is 1; after is how long after that begins to move something.
	drain int
	after time.Duration
	// host is empty for that of the primary.
	host drover.HostID
}

// cutOf makes a cut of a seed; 0 is the one that is always shown: the primary's host, as soon as the second drain moves something.
func cutOf(seed uint64, hosts []drover.HostID) cut {
	if seed == 0 {
		return cut{drain: 2}
	}
	r := rand.New(rand.NewPCG(seed, 0))
	c := cut{drain: 1 + r.IntN(3), after: time.Duration(r.IntN(15_000)) * time.Millisecond}
	if r.IntN(3) > 0 { // the primary's, once in three
		c.host = hosts[r.IntN(len(hosts))]
	}
	return c
}

func (c cut) String() string {
	host := "the primary's host"
	if c.host != "" {
		host = "host " + string(c.host)
	}
	return fmt.Sprintf("drain %d, %.1f s after it has begun to move: %s", c.drain, c.after.Seconds(), host)
}
