package vhostuser

import (
	"context"
	"log/slog"

	"drover/internal/fault"
)

// Backend is the content of a disk. All methods may be called from many goroutines at once; ranges lie within the disk, and are
// multiples of 512 bytes. The buffers are guest memory: the guest may change them while they are written to the disk.
type Backend interface {
	// ReadVec fills the buffers one after the other, from the offset on.
	ReadVec(ctx context.Context, iov [][]byte, off int64) error
	// WriteVec writes the buffers one after the other, from the offset on.
	WriteVec(ctx context.Context, iov [][]byte, off int64) error
	// Flush makes everything durable whose call had returned before Flush was called.
	Flush(ctx context.Context) error
	// Discard says that the content of the range does not matter any more; it reads as zeroes afterwards.
	Discard(ctx context.Context, off, n int64, fua bool) error
	// Zero makes the range read as zeroes. With keep, the space stays allocated.
	Zero(ctx context.Context, off, n int64, keep, fua bool) error
}

// Trier is an optional interface of a Backend, for speed: what a ring's own goroutine does without a worker.
type Trier interface {
	// TryReadVec is ReadVec for what can be had at once, at most 64 KiB, without waiting for the network, another request, or (where the system can
	// tell) the disk. It returns false with a nil error to leave the request to ReadVec.
	TryReadVec(iov [][]byte, off int64) (done bool, err error)
	// TryWriteVec is the same for WriteVec.
	TryWriteVec(iov [][]byte, off int64) (done bool, err error)
}

// Config describes a Device.
type Config struct {
	Backend Backend
	// Size is the size of the disk in bytes, a multiple of 512.
	Size     int64
	ReadOnly bool
	// Serial is what the guest reads as the disk's serial number; at most 20 bytes of it.
	Serial string
	// Start is called once, before the first ring of the connection begins. When it returns without error, no ring of an earlier connection
	// to the same content runs any more. Nil when there is nothing to do.
	Start func() error
	// Gone is closed by the owner of the content before the Backend begins to fail because the content is taken away. A request
	// that fails after it is not completed: the guest waits for the next connection and sees no error. Nil means never.
	Gone <-chan struct{}
	// Hangup is called when the conversation has ended, before what is left of the rings is waited for. Nil when nobody wants to know.
	Hangup func()
	Log    *slog.Logger
	Faults *fault.Points
}
