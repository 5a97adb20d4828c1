package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
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

// relayHeader is the part of each message that tells the size of the rest (vhost-user.rst, "Message Specification").
const relayHeader = 12

// passMessage passes one message on, with its descriptors. One at a time: the kernel would put descriptors to the front of whatever is read together.
func passMessage(from, to *net.UnixConn) (err error) {
	data, oob := make([]byte, relayHeader), make([]byte, unix.CmsgSpace(8*4))
	n, oobn, _, _, err := from.ReadMsgUnix(data, oob)
	if err != nil || n == 0 {
		return errors.Join(err, net.ErrClosed)
	}
	fds, err := descriptors(oob[:oobn])
	defer func() {
		for _, fd := range fds {
			err = errors.Join(err, unix.Close(fd))
		}
	}()
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(from, data[n:]); err != nil {
		return err
	}
	data = append(data, make([]byte, binary.NativeEndian.Uint32(data[8:]))...)
	if _, err := io.ReadFull(from, data[relayHeader:]); err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err = to.WriteMsgUnix(data, rights, nil)
	return err
}

// descriptors takes them out of a message's ancillary data.
func descriptors(oob []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	for _, m := range messages {
		more, parsed := unix.ParseUnixRights(&m)
		fds, err = append(fds, more...), errors.Join(err, parsed)
	}
	return fds, err
}
