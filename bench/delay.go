package main

import (
	"errors"
	"net"
	"sync"
	"time"
)

// delay is a link in user space that takes its time, half of the round trip each way.
type delay struct {
	to   string
	half time.Duration
	l    net.Listener
	wg   sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

func newDelay(to string, roundTrip time.Duration) (*delay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &delay{to: to, half: roundTrip / 2, l: l}
	d.wg.Go(d.accept)
	return d, nil
}

func (d *delay) address() string { return d.l.Addr().String() }

func (d *delay) accept() {
	for {
		near, err := d.l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", d.to)
		if err != nil {
			near.Close()
			continue
		}
		d.mu.Lock()
		d.conns = append(d.conns, near, far)
		d.mu.Unlock()
		d.wg.Go(func() { d.pass(near, far) })
		d.wg.Go(func() { d.pass(far, near) })
	}
}

// late is a piece of data and when it arrives.
type late struct {
	at   time.Time
	data []byte
}

// pass hands on what comes, later. It ends both sides when one ends.
func (d *delay) pass(from, to net.Conn) {
	queue := make(chan late, 256)
	d.wg.Go(func() {
		defer to.Close()
		for piece := range queue {
			time.Sleep(time.Until(piece.at))
			if _, err := to.Write(piece.data); err != nil {
				from.Close()
			}
		}
	})
	defer close(queue)
	for {
		buf := make([]byte, 64<<10)
		n, err := from.Read(buf)
		if n > 0 {
			queue <- late{at: time.Now().Add(d.half), data: buf[:n]}
		}
		if err != nil {
			return
		}
	}
}

func (d *delay) close() error {
	err := d.l.Close()
	d.mu.Lock()
	for _, c := range d.conns {
		if cerr := c.Close(); cerr != nil && !errors.Is(cerr, net.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}
	d.mu.Unlock()
	d.wg.Wait()
	return err
}
