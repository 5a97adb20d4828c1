package qemu

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"drover"
	"drover/internal/durable"
	"drover/internal/fleetca"
	"drover/internal/ramcopy"
)

// sendFile notes, in a VM's directory, where its memory is being sent, so that the next agent begins anew what this one did not end.
const sendFile = "send.json"

const (
	// againFor is how long a receiver is looked for that does not answer: its agent may just be restarting. pausedAgainFor is the same while the VM stands still.
	againFor       = 5 * time.Second
	pausedAgainFor = 3 * time.Second
	againEvery     = 200 * time.Millisecond
	// stubborn is after how many passes a guest that changes its memory as fast as it is copied is paused for longer than was asked for,
	// at most for stubbornPause.
	stubborn      = 32
	stubbornPause = 10 * time.Second
	// lastBound bounds the last pass, so that a VM does not stand still for long because nobody answers any more.
	lastBound = stubbornPause + 5*time.Second
	// statePause is more than QEMU needs for what it sends itself, so that it pauses the VM at once.
	statePause = 5 * time.Second
)

// sending sends the memory of a VM by ramcopy, and lets QEMU send the rest: the VM runs until nearly all is sent, is paused by QEMU, and then what
// still differs follows.
type sending struct {
	vm     *VM
	to     drover.VMSend
	sender *ramcopy.Sender
	memory *os.File
	pause  atomic.Int64 // how long the VM may stand still for what is left
	cancel context.CancelFunc

	// begun: QEMU was told to send the state.
	begun atomic.Bool
	// done is closed when all of the memory is there, or when it came to nothing: err says why then.
	done chan struct{}
	err  error
}

// sendMemory begins to send.
func (vm *VM) sendMemory(to drover.VMSend) error {
	memory, size, err := vm.memory(os.O_RDONLY)
	if err != nil {
		return err
	}
	sender, err := ramcopy.NewSender(memory, size, to.Bandwidth)
	if err == nil {
		err = durable.WriteJSON(vm.d.path(vm.id, sendFile), to, 0o600)
	}
	if err != nil {
		return errors.Join(drover.Errorf(drover.Internal, "machine %q: cannot send its memory: %w", vm.id, err), memory.Close())
	}
	s := &sending{vm: vm, to: to, sender: sender, memory: memory, done: make(chan struct{})}
	s.pause.Store(int64(to.Pause))
	ctx, cancel := context.WithCancel(vm.life)
	s.cancel = cancel
	vm.mu.Lock()
	vm.sending = s
	vm.mu.Unlock()
	vm.wg.Go(func() { s.run(ctx) })
	return nil
}

// run tries until all is there.
func (s *sending) run(ctx context.Context) {
	defer s.vm.tell()
	defer close(s.done)
	defer s.memory.Close() // it is the VM's
	since := time.Now()
	for {
		reached, err := s.try(ctx)
		if reached {
			since = time.Now()
		}
		patience := againFor
		if s.begun.Load() {
			patience = pausedAgainFor
		}
		var lost lostError
		if err == nil || ctx.Err() != nil || !errors.As(err, &lost) || time.Since(since) > patience {
			s.err = err
			break
		}
		s.vm.d.cfg.Log.Info("the memory is sent anew", "machine", s.vm.id, "to", s.to.Peer, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(againEvery):
		}
	}
	if s.err != nil && ctx.Err() == nil { // told, and not begun anew by the next agent
		if err := os.Remove(s.vm.d.path(s.vm.id, sendFile)); err != nil && !isGone(err) {
			s.vm.d.cfg.Log.Warn("a note of a transfer stays behind", "machine", s.vm.id, "err", err)
		}
	}
}

// lostError says that the connection to the receiver, or to QEMU, was lost, or not made.
type lostError struct{ error }

func (e lostError) Unwrap() error { return e.error }

// try sends over one connection. reached tells whether there was one.
func (s *sending) try(ctx context.Context) (reached bool, err error) {
	if all, err := s.look(ctx); all || err != nil {
		return false, err
	}
	config, err := fleetca.ClientConfig(s.vm.d.cfg.TLSDir, s.to.Peer)
	if err != nil {
		return false, err
	}
	dctx, cancel := context.WithTimeout(ctx, handshakeWait)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(dctx, "tcp", s.to.Address)
	if drover.Is(err, drover.Denied) {
		return false, err
	}
	if err != nil {
		return false, lostError{err}
	}
	defer conn.Close() // all was confirmed, or it is begun anew
	defer context.AfterFunc(ctx, func() { conn.(*tls.Conn).NetConn().Close() })()
	state, err := s.sender.Attach(conn)
	if err != nil {
		return true, lost(err)
	}
	if !s.begun.Load() {
		if err := s.passes(ctx); err != nil {
			return true, lostError{err}
		}
		rest := drover.VMSend{Address: state, Peer: s.to.Peer, Pause: statePause} // it is little, and not bounded
		if err := s.vm.sendState(ctx, rest, s.vm.d.sharedStays()...); err != nil {
			return true, err
		}
		s.begun.Store(true)
	}
	if err := s.awaitPause(ctx); err != nil {
		return true, err
	}
	if err := conn.SetDeadline(time.Now().Add(lastBound)); err != nil {
		return true, lostError{err}
	}
	return true, lost(s.sender.Last(ctx))
}

// look finds out how far an earlier agent got. all: everything of the VM was sent.
func (s *sending) look(ctx context.Context) (all bool, err error) {
	if s.begun.Load() {
		return false, nil
	}
	now, err := s.vm.ask(ctx)
	if err != nil {
		return false, lost(err)
	}
	all = now.State == drover.TransferDone && !now.Running
	s.begun.Store(all || now.State == drover.TransferActive || now.State == drover.TransferPaused)
	return all, nil
}

// lost tells what the connection's error is from what another one would not mend.
func lost(err error) error {
	if err == nil || drover.Is(err, drover.Precondition) {
		return err
	}
	return lostError{err}
}

// passes sends the memory until so little is left that it takes no longer than the allowed pause.
func (s *sending) passes(ctx context.Context) error {
	for {
		p, err := s.sender.Pass(ctx)
		if err != nil {
			return err
		}
		may := time.Duration(s.pause.Load())
		if s.sender.Progress().Rounds > stubborn {
			may = stubbornPause
		}
		if p.Rest <= may {
			return nil
		}
	}
}

// awaitPause waits until QEMU has paused the VM.
func (s *sending) awaitPause(ctx context.Context) error {
	for {
		info, err := s.vm.migration(ctx)
		if err != nil {
			return lost(err)
		}
		switch info.state() {
		case drover.TransferPaused:
			return nil
		case drover.TransferActive:
		default:
			return drover.Errorf(drover.Unavailable, "QEMU does not send the state of machine %q: it is %s. %s", s.vm.id, info.Status, info.Reason)
		}
		select {
		case <-s.vm.migrated:
		case <-time.After(statePoll):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// over reports whether the sending has come to an end, and to which.
func (s *sending) over() (over bool, err error) {
	select {
	case <-s.done:
		return true, s.err
	default:
		return false, nil
	}
}

// tells completes what QEMU tells of the VM's transfer: its word counts if it had been told of it (begun).
func (s *sending) tells(t drover.VMTransfer, begun bool) drover.VMTransfer {
	memory := s.sender.Progress()
	if begun {
		memory.Transferred += t.Memory.Transferred
	}
	t.Memory = memory
	over, err := s.over()
	switch {
	case over && err != nil:
		t.State, t.Reason = drover.TransferFailed, err.Error()
	case !begun:
		t.State, t.Reason = drover.TransferActive, ""
	}
	return t
}

// await waits until all of the memory is there.
func (s *sending) await(ctx context.Context) error {
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stopSending ends the sending of the VM's memory, if it is being sent, and forgets it.
func (vm *VM) stopSending() error {
	vm.mu.Lock()
	s := vm.sending
	vm.sending = nil
	vm.mu.Unlock()
	if s != nil {
		s.cancel()
		<-s.done
	}
	if err := os.Remove(vm.d.path(vm.id, sendFile)); err != nil && !isGone(err) {
		return drover.Errorf(drover.Internal, "machine %q: cannot end the sending of its memory: %w", vm.id, err)
	}
	return nil
}

// goOnCopying begins anew what an earlier agent did with the memory of a VM that was found.
func (vm *VM) goOnCopying(ctx context.Context) error {
	var take takeRecord
	if err := durable.ReadJSON(vm.d.path(vm.id, takeFile), &take); err == nil {
		if err := vm.takeMemory(ctx, take); err != nil {
			return err
		}
	} else if !isGone(err) {
		return err
	}
	var to drover.VMSend
	if err := durable.ReadJSON(vm.d.path(vm.id, sendFile), &to); isGone(err) {
		return nil
	} else if err != nil {
		return err
	}
	return vm.sendMemory(to)
}
