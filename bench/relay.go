package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// relayVhost lets a VM that listens for its disk at one socket be served by a daemon that listens at another, again and again until ctx ends. Only the
// few messages with which a disk is set up pass through it, and the descriptors of memory and events with them; requests never do.
func relayVhost(ctx context.Context, vm, daemon string) {
	for ctx.Err() == nil {
		if err := relayOnce(ctx, vm, daemon); err != nil {
			select {
			case <-time.After(10 * time.Millisecond): // neither of the two is there all the time
			case <-ctx.Done():
			}
		}
	}
}

func relayOnce(ctx context.Context, vm, daemon string) error {
	a, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: vm, Net: "unix"})
	if err != nil {
		return err
	}
	b, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: daemon, Net: "unix"})
	if err != nil {
		return errors.Join(err, a.Close())
	}
	shut := sync.OnceFunc(func() { a.Close(); b.Close() }) // both ends have nothing left to say
	stop := context.AfterFunc(ctx, shut)
	defer stop()
	var group sync.WaitGroup
	for _, way := range [][2]*net.UnixConn{{a, b}, {b, a}} {
		group.Go(func() {
			defer shut()
			for passMessage(way[0], way[1]) == nil {
			}
		})
	}
	group.Wait()
	return nil
}

// passMessage passes on what comes at once, with its descriptors.
func passMessage(from, to *net.UnixConn) (err error) {
	data, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*8))
	n, oobn, _, _, err := from.ReadMsgUnix(data, oob)
	if err != nil || n == 0 {
		return errors.Join(err, net.ErrClosed)
	}
	var fds []int
	if oobn > 0 {
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return err
		}
		for _, m := range messages {
			more, err := unix.ParseUnixRights(&m)
			if err != nil {
				return err
			}
			fds = append(fds, more...)
		}
	}
	defer func() {
		for _, fd := range fds {
			err = errors.Join(err, unix.Close(fd))
		}
	}()
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err = to.WriteMsgUnix(data[:n], rights, nil)
	return err
}
