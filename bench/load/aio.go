package main

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands of a control block (Linux include/uapi/linux/aio_abi.h).
const (
	cmdRead  = 0
	cmdWrite = 1
)

// iocb is struct iocb.
type iocb struct {
	data   uint64
	_      uint32 // key
	_      uint32 // flags
	opcode uint16
	_      int16 // priority
	fd     uint32
	buf    uint64
	bytes  uint64
	offset int64
	_      uint64
	_      uint32
	_      uint32
}

// ioEvent is struct io_event.
type ioEvent struct {
	data uint64
	obj  uint64
	res  int64
	res2 int64
}

// aio is a context with room for depth requests, each with a buffer of its own.
type aio struct {
	ctx    uintptr
	depth  int
	mem    []byte
	blocks []iocb
	events []ioEvent
}

// newAIO makes a context; the buffers have size bytes each.
func newAIO(fd, depth, size int) (*aio, error) {
	a := &aio{depth: depth, blocks: make([]iocb, depth), events: make([]ioEvent, depth)}
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, uintptr(depth), uintptr(unsafe.Pointer(&a.ctx)), 0); errno != 0 {
		return nil, fmt.Errorf("io_setup: %w", errno)
	}
	var err error
	if a.mem, err = unix.Mmap(-1, 0, depth*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE); err != nil {
		return nil, errors.Join(err, a.close())
	}
	for i := range a.blocks {
		a.blocks[i] = iocb{data: uint64(i), fd: uint32(fd), buf: uint64(uintptr(unsafe.Pointer(&a.mem[i*size]))), bytes: uint64(size)}
	}
	return a, nil
}

// submit begins the i-th request.
func (a *aio) submit(i int, opcode uint16, offset int64) error {
	b := &a.blocks[i]
	b.opcode, b.offset = opcode, offset
	for {
		_, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, a.ctx, 1, uintptr(unsafe.Pointer(&b)))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR && errno != unix.EAGAIN {
			return fmt.Errorf("io_submit: %w", errno)
		}
	}
}

// wait returns the requests that are done, one at least.
func (a *aio) wait() ([]ioEvent, error) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, a.ctx, 1, uintptr(a.depth), uintptr(unsafe.Pointer(&a.events[0])), 0, 0)
		if errno == 0 {
			return a.events[:n], nil
		}
		if errno != unix.EINTR {
			return nil, fmt.Errorf("io_getevents: %w", errno)
		}
	}
}

func (a *aio) close() error {
	var err error
	if _, _, errno := unix.Syscall(unix.SYS_IO_DESTROY, a.ctx, 0, 0); errno != 0 {
		err = errno
	}
	if a.mem != nil {
		err = errors.Join(err, unix.Munmap(a.mem))
	}
	return err
}
