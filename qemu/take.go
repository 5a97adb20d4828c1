package qemu

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"sync"
	"time"

	"drover"
	"drover/internal/durable"
	"drover/internal/fleetca"
	"drover/internal/ramcopy"
)

// takeFile notes, in a VM's directory, that it takes its memory, so that the next agent goes on listening where this one did.
const takeFile = "take.json"

// handshakeWait bounds the handshake of a connection that memory is to go over.
const handshakeWait = 10 * time.Second

// takeRecord is what is in the file.
type takeRecord struct {
	// Address is where the memory is taken, from Peer alone; State where QEMU waits for the rest.
	Address string        `json:"address"`
	Peer    drover.HostID `json:"peer"`
	State   string        `json:"state"`
}

// taking takes the memory of a VM that waits.
type taking struct {
	vm     *VM
	record takeRecord
	l      net.Listener
	tls    *tls.Config
	cancel context.CancelFunc
	done   chan struct{}
}

// takeMemory listens for the memory. The record comes after the port is known, and before anybody is told of it.
func (vm *VM) takeMemory(ctx context.Context, r takeRecord) error {
	refuse := func(err error) error {
		return drover.Errorf(drover.Unavailable, "machine %q: its memory cannot be taken: %w", vm.id, err)
	}
	config, err := fleetca.ServerConfig(vm.d.cfg.TLSDir)
	if err != nil {
		return err
	}
	t := &taking{vm: vm, tls: config, done: make(chan struct{})}
	if t.l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", r.Address); err != nil {
		return refuse(err)
	}
	r.Address = t.l.Addr().String()
	if err := durable.WriteJSON(vm.d.path(vm.id, takeFile), r, 0o600); err != nil {
		t.l.Close() // nobody knows of it
		return refuse(err)
	}
	t.record = r
	ctx, t.cancel = context.WithCancel(vm.life)
	vm.wg.Go(func() {
		defer close(t.done)
		t.serve(ctx)
	})
	vm.mu.Lock()
	vm.taking = t
	vm.mu.Unlock()
	return nil
}

// serve takes one connection at a time. A newer one is the sender's next try: what came over the last one is of no use.
func (t *taking) serve(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { t.l.Close() })() // ends the loop
	end := func() {}
	defer func() { end() }()
	for {
		conn, err := t.l.Accept()
		if err != nil {
			return
		}
		greeted, err := t.greet(ctx, conn)
		if err != nil {
			t.vm.d.cfg.Log.Warn("a connection for memory is refused", "machine", t.vm.id, "err", err)
			conn.Close() // it is not the peer's
			continue
		}
		end() // the one before has written its last when this returns
		cctx, cancel := context.WithCancel(ctx)
		var one sync.WaitGroup
		one.Go(func() { t.take(cctx, greeted) })
		end = func() { cancel(); one.Wait() }
	}
}

// greet makes sure that it is the peer.
func (t *taking) greet(ctx context.Context, conn net.Conn) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeWait)
	defer cancel()
	c := tls.Server(conn, t.tls)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return c, fleetca.VerifyHost(c.ConnectionState(), t.record.Peer)
}

// take fills the VM's memory from a connection.
func (t *taking) take(ctx context.Context, conn *tls.Conn) {
	defer conn.Close() // all was read, or nobody wants it
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	memory, size, err := t.vm.memory(os.O_RDWR)
	if err == nil {
		err = ramcopy.Receive(conn, memory, size, t.record.State)
		memory.Close() // it is the VM's
	}
	if err != nil && ctx.Err() == nil {
		t.vm.d.cfg.Log.Info("the memory did not arrive", "machine", t.vm.id, "from", t.record.Peer, "err", err)
	}
}

// stopTaking ends the taking: when it returns nothing writes to the VM's memory but the VM itself and its disks.
func (vm *VM) stopTaking() error {
	vm.mu.Lock()
	t := vm.taking
	vm.taking = nil
	vm.mu.Unlock()
	if t != nil {
		t.cancel()
		<-t.done
	}
	if err := os.Remove(vm.d.path(vm.id, takeFile)); err != nil && !isGone(err) {
		return drover.Errorf(drover.Internal, "machine %q: cannot end the taking of its memory: %w", vm.id, err)
	}
	return nil
}
