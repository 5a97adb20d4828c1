package guest

import (
	"context"
	"errors"
	"os"
	"time"

	"drover"

	"golang.org/x/sys/unix"
)

// pollEvery is how often a file is looked at when the kernel cannot tell that it changed.
const pollEvery = 50 * time.Millisecond

// fileWatch waits for a file to grow.
type fileWatch struct {
	// notify is an inotify instance; nil when there is none to be had (their number per user is bounded).
	notify *os.File
}

// watchFile watches the file at path, which is made when it does not exist. A change between watchFile and Wait is not missed.
func watchFile(path string) (*fileWatch, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot open %s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot open %s: %w", path, err)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return &fileWatch{}, nil // too many instances: poll
	}
	notify := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY); err != nil {
		return &fileWatch{}, notify.Close() // too many watches: poll
	}
	return &fileWatch{notify: notify}, nil
}

// Wait returns nil when the file may have changed since the last Wait, and the context's error when ctx ends. A second passes at
// most between two looks, so that a file that was replaced does not stay unseen.
func (w *fileWatch) Wait(ctx context.Context) error {
	wait := pollEvery
	if w.notify != nil {
		wait = time.Second
	}
	limit, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if w.notify == nil {
		<-limit.Done()
		return context.Cause(ctx)
	}
	if err := w.notify.SetReadDeadline(time.Time{}); err != nil {
		return drover.Errorf(drover.Internal, "cannot wait for a file: %w", err)
	}
	// A deadline in the past ends the read below.
	stop := context.AfterFunc(limit, func() { _ = w.notify.SetReadDeadline(time.Unix(1, 0)) }) // it fails when the watch is closed
	defer stop()
	var events [4096]byte
	_, err := w.notify.Read(events[:])
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return drover.Errorf(drover.Internal, "cannot wait for a file: %w", err)
	}
	return context.Cause(ctx)
}

// Close ends the watch.
func (w *fileWatch) Close() error {
	if w.notify == nil {
		return nil
	}
	return w.notify.Close()
}
