package vhostuser

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/internal/timeslice"
)

// bell is what the goroutine of a ring sleeps on: the guest's kicks, and a descriptor of our own by which it is woken for anything else. The
// goroutine waits in the system call itself. Behind Go's netpoller a kick would wake one thread that has to find another for the goroutine, which
// costs a small guest as much as the request.
type bell struct {
	wake, kick int
	fds        [2]unix.PollFd // of both; not waited for any more when negative
	slice      timeslice.Slice
	done       chan struct{} // closed when the goroutine has ended
}

// newBell takes the descriptor of the kicks over when it succeeds.
func newBell(kick int) (*bell, error) {
	wake, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot make an event descriptor: %w", err)
	}
	b := &bell{wake: wake, kick: kick, done: make(chan struct{})}
	for i, fd := range []int{wake, kick} {
		b.fds[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	return b, nil
}

// ring wakes the goroutine.
func (b *bell) ring() { notify(b.wake) }

// wait sleeps until something is to be looked at, at most for the limit if that is not negative. It may end early. An error says that
// there will be no more kicks; it comes once.
func (b *bell) wait(limit time.Duration) error {
	b.slice.Yield()
	var timeout *unix.Timespec
	if limit >= 0 {
		t := unix.NsecToTimespec(int64(limit))
		timeout = &t
	}
	if n, err := unix.Ppoll(b.fds[:], timeout, nil); n <= 0 {
		if err != nil && !errors.Is(err, unix.EINTR) {
			time.Sleep(time.Millisecond) // out of memory: later, then
		}
		return nil
	}
	for i := range b.fds {
		f := &b.fds[i]
		if f.Revents == 0 {
			continue
		}
		var count [8]byte
		_, err := unix.Read(int(f.Fd), count[:])
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			f.Fd = -1 // it would be reported for ever
			return err
		}
	}
	return nil
}

// close is called by the goroutine when it ends, or by whoever never began one: the descriptors may be waited on until then.
func (b *bell) close() error {
	return errors.Join(unix.Close(b.wake), unix.Close(b.kick))
}
