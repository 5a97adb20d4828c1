package timeslice

import (
	"runtime"
	"testing"
)

// A slice that is over lets others run.
func TestWhoYieldsLetsOthersRun(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	ran := make(chan struct{}, 1)
	go func() { ran <- struct{}{} }()
	for range 3 { // each 61st look of Go's scheduler is at who yielded first
		var s Slice // it began long ago
		s.Yield()
	}
	select {
	case <-ran:
	default:
		t.Error("a goroutine that was ready has not run")
	}
}
