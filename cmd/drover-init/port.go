package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errHostGone: nobody is connected to the host's end of the port.
var errHostGone = errors.New("the host is not connected")

// errStuck: the host does not take what is written.
var errStuck = errors.New("the host does not read")

// errKept: the host does not read, but a part got through, so the rest is kept and will be written before anything else.
var errKept = errors.New("the host does not read; the rest will follow")

// portWait bounds the wait for a port to appear after its driver was loaded: that happens in the background.
const portWait = 5 * time.Second

// port is a virtio-serial port. It is not safe for concurrent use, save for one reader beside one writer.
type port struct {
	name string
	fd   int
	// rest is the end of a write that did not get through; it is written first, so that lines stay whole.
	rest []byte
}

// openPort opens the port that the VMM gave the name.
func openPort(name string) (*port, error) {
	var device string
	err := poll(portWait, func() (bool, error) {
		files, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return false, err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err == nil && strings.TrimSpace(string(text)) == name {
				device = filepath.Base(filepath.Dir(file))
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return nil, fmt.Errorf("the VM has no virtio-serial port %q: %w", name, err)
	}
	fd, err := unix.Open("/dev/"+device, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open port %q (/dev/%s): %w", name, device, err)
	}
	return &port{name: name, fd: fd}, nil
}

// write writes all of b, waiting up to patience for the host to take it. When that is over, or nobody is there, it returns errKept if
// a part of b got through, else errStuck or errHostGone: then b is lost as a whole.
func (p *port) write(b []byte, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	if len(p.rest) > 0 {
		if _, err := p.writeSome(&p.rest, deadline); err != nil {
			return err
		}
	}
	begun, err := p.writeSome(&b, deadline)
	if err != nil && begun {
		p.rest = append([]byte(nil), b...)
		return errKept
	}
	return err
}

// writeSome writes *b and moves it on; begun says that a part of it got through.
func (p *port) writeSome(b *[]byte, deadline time.Time) (begun bool, err error) {
	for len(*b) > 0 {
		n, err := unix.Write(p.fd, *b)
		switch {
		case err == nil:
			*b = (*b)[n:]
			begun = true
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if err := p.waitWritable(deadline); err != nil {
				return begun, err
			}
		default:
			return begun, fmt.Errorf("cannot write to port %q: %w", p.name, err)
		}
	}
	return begun, nil
}

// waitWritable waits until the port takes more.
func (p *port) waitWritable(deadline time.Time) error {
	left := time.Until(deadline)
	if left <= 0 {
		return errStuck
	}
	events := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLOUT}}
	_, err := unix.Poll(events, int(left.Milliseconds())+1)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("cannot wait for port %q: %w", p.name, err)
	}
	if events[0].Revents&unix.POLLHUP != 0 {
		return errHostGone
	}
	return nil
}

// forget drops what is left of a write that did not get through.
func (p *port) forget() { p.rest = nil }

// read calls data for what arrives and gone whenever the host's end was disconnected. It returns only when the port cannot
// be used any more.
//
// A port without a connected host is always readable and at its end, so an ordinary wait would spin. Edge-triggered, epoll tells
// changes only: bytes that arrived, a host that came or went.
func (p *port) read(data func([]byte), gone func()) error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("cannot wait for port %q: %w", p.name, err)
	}
	defer closeFD(ep)
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLHUP | unix.EPOLLET, Fd: int32(p.fd)}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, p.fd, &event); err != nil {
		return fmt.Errorf("cannot wait for port %q: %w", p.name, err)
	}
	buffer := make([]byte, 32<<10)
	events := make([]unix.EpollEvent, 1)
	for {
		for more := true; more; {
			n, err := unix.Read(p.fd, buffer)
			switch {
			case err == nil && n > 0:
				data(buffer[:n])
			case err == nil:
				gone()
				more = false
			case errors.Is(err, unix.EAGAIN):
				more = false
			case !errors.Is(err, unix.EINTR):
				return fmt.Errorf("cannot read port %q: %w", p.name, err)
			}
		}
		if _, err := unix.EpollWait(ep, events, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("cannot wait for port %q: %w", p.name, err)
		}
	}
}

// poll calls done every few milliseconds until it says true or fails, for as long as limit.
func poll(limit time.Duration, done func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not there after %s", limit)
		}
		<-time.After(2 * time.Millisecond)
	}
}
