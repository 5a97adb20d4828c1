package nbd

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/internal/timeslice"
)

const (
	// pollMost is for how long a reader asks its socket again and again before it sleeps. A processor that has nothing to do needs most of this time to wake up
	// where it is a virtual one; KVM and QEMU's iothreads poll for like times.
	pollMost = 64 * time.Microsecond
	// pollLeast is what it begins with.
	pollLeast = 4 * time.Microsecond
)

// wait is how a reader waits for what a client sends that has one request in flight: most of the time of such a request is that of waking up, of the client for the reply
// and of the server for the next request. So the reader polls for a while, longer each time when what came came soon after it had gone to sleep, and not at all
// when nothing comes soon: a client that lets it wait, a guest that computes for instance, costs no polling. It is for one reader at a time.
type wait struct {
	limit time.Duration // how long to poll; 0 is not at all
	slice timeslice.Slice
}

// poll reads what comes within the limit; 0 is for nothing, and for an end or an error, which the caller's own read will see.
func (w *wait) poll(fd int, p []byte) int {
	if w.limit == 0 || len(p) == 0 {
		return 0
	}
	for began := time.Now(); time.Since(began) < w.limit; {
		// It never blocks, and so need not be told to Go's scheduler.
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case unix.EAGAIN, unix.EINTR:
		default:
			return 0
		}
	}
	return 0
}

// learn is told how long the reader has slept, after the limit had been polled in vain.
func (w *wait) learn(slept time.Duration) {
	if w.limit+slept > pollMost {
		w.limit = 0
		return
	}
	w.limit = max(pollLeast, min(2*w.limit, pollMost))
}
