package main

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"drover"
	"drover/guest"
	"drover/internal/frames"
)

// answerPatience is how long an answer waits for the host to take it. It is lost then; the host asks again.
const answerPatience = 10 * time.Second

// silence is how long after its client seems to have left a session goes on.
const silence = 2 * time.Second

// errSessionEnded is why the commands of a client that left are killed.
var errSessionEnded = errors.New("the host's connection ended")

// handler does what requests ask. Exec, stream, freeze, thaw, grow and ps may block; the others may not.
type handler interface {
	freeze(volume string, most time.Duration) error
	thaw(volume string) error
	grow(volume string, size drover.Bytes) error
	exec(ctx context.Context, req guest.Request) (drover.ExecResult, error)
	// stream runs a command whose input and output go by the connection; it neither sends the last frame nor closes it.
	stream(ctx context.Context, req guest.Request, conn frames.Conn) (drover.StreamExit, error)
	signal(name string) error
	stop(signal string, timeout time.Duration) error
	status() guest.Status
	ps() ([]drover.Process, error)
}

// agent answers the host on the agent port: one client at a time, each in a session that begins with guest.Magic.
type agent struct {
	handler handler
	port    *port
	decoder guest.Decoder

	// sending is held while an answer is written, so that frames do not mix. It comes before mu.
	sending sync.Mutex

	mu sync.Mutex
	// session is the client that is being served; nil when none is.
	session *session
}

// session is what one client of the host has begun.
type session struct {
	ctx context.Context
	end context.CancelCauseFunc
	// greeted: it has said hello.
	greeted bool
	// heard counts its requests.
	heard uint64
	// execs are the commands that run, by request ID.
	execs map[uint64]context.CancelCauseFunc
	// streams are the ends of those that run with one.
	streams map[uint64]*agentStream
}

// serve answers requests; it returns only when the port is broken.
func (a *agent) serve() error { return a.port.read(a.received, a.disconnected) }

// disconnected ends the session when nothing is heard in it for a while. The kernel may tell that a client left after the next one has
// begun its session, so this says little of the session that is there now; a client that comes begins its own.
func (a *agent) disconnected() {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.session
	if s == nil {
		return
	}
	heard := s.heard
	time.AfterFunc(silence, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.session == s && s.heard == heard {
			s.end(errSessionEnded)
			a.session = nil
		}
	})
}

// broken ends the session at once: what follows cannot be believed.
func (a *agent) broken() {
	a.decoder.Reset()
	a.replace(nil)
}

// replace ends the session and begins another, if one is given.
func (a *agent) replace(next *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.session != nil {
		a.session.end(errSessionEnded)
	}
	a.session = next
}

// received takes bytes of the host.
func (a *agent) received(data []byte) {
	if a.decoder.Feed(data) {
		ctx, end := context.WithCancelCause(context.Background())
		a.replace(&session{ctx: ctx, end: end, execs: map[uint64]context.CancelCauseFunc{}, streams: map[uint64]*agentStream{}})
	}
	for frame := a.decoder.Next(); frame != nil; frame = a.decoder.Next() {
		if id, f, ok := guest.DecodeStream(frame); ok {
			a.mu.Lock()
			s := a.session
			a.mu.Unlock()
			if s != nil {
				a.receivedFrame(s, id, f)
			}
			continue
		}
		var req guest.Request
		if err := json.Unmarshal(frame, &req); err != nil {
			a.broken()
			return
		}
		a.mu.Lock()
		s := a.session
		if s != nil {
			s.heard++
		}
		a.mu.Unlock()
		if s != nil {
			a.handle(s, req)
		}
	}
	if !a.decoder.InSession() {
		a.replace(nil)
	}
}

// handle answers a request, at once or, for exec, when the command has ended.
func (a *agent) handle(s *session, req guest.Request) {
	if req.Op == guest.OpHello {
		s.greeted = true
		a.answer(s, guest.Answer{ID: req.ID, Nonce: req.Nonce}, guest.Magic)
		return
	}
	if !s.greeted {
		a.answer(s, guest.Answer{ID: req.ID, Error: drover.Errorf(drover.Precondition, "the session must begin with hello")}, "")
		return
	}
	answer := guest.Answer{ID: req.ID}
	var err error
	switch req.Op {
	case guest.OpPing:
	case guest.OpStatus:
		status := a.handler.status()
		answer.Status = &status
	case guest.OpSignal:
		err = a.handler.signal(req.Signal)
	case guest.OpClock:
		err = setClock(req.Time)
	case guest.OpStop:
		err = a.handler.stop(req.Signal, time.Duration(req.Timeout))
	case guest.OpCancel:
		a.cancel(s, req.Cancel)
	case guest.OpExec:
		if err = a.startExec(s, req); err == nil {
			return
		}
	case guest.OpStream:
		if err = a.startStream(s, req); err == nil {
			return
		}
	case guest.OpFreeze, guest.OpThaw, guest.OpGrow:
		go a.onVolume(s, req)
		return
	case guest.OpPs:
		go a.onPs(s, req)
		return
	default:
		err = drover.Errorf(drover.Invalid, "the guest knows no request %q", req.Op).
			WithHint("build the guest again: script/build-guest")
	}
	answer.Error = drover.AsError(err)
	a.answer(s, answer, "")
}

// onVolume does what a request asks of a volume's file system, which may have to wait for the disk.
func (a *agent) onVolume(s *session, req guest.Request) {
	var err error
	switch req.Op {
	case guest.OpFreeze:
		err = a.handler.freeze(req.Volume, time.Duration(req.Timeout))
	case guest.OpThaw:
		err = a.handler.thaw(req.Volume)
	default:
		err = a.handler.grow(req.Volume, req.Size)
	}
	a.answer(s, guest.Answer{ID: req.ID, Error: drover.AsError(err)}, "")
}

// onPs lists the processes, which takes a while where there are many.
func (a *agent) onPs(s *session, req guest.Request) {
	list, err := a.handler.ps()
	a.answer(s, guest.Answer{ID: req.ID, Error: drover.AsError(err), Processes: list}, "")
}

// startExec runs a command in the background and answers when it has ended.
func (a *agent) startExec(s *session, req guest.Request) error {
	if len(req.Argv) == 0 {
		return drover.Errorf(drover.Invalid, "there is no command to run").WithField("command")
	}
	timeout := time.Duration(req.Timeout)
	if timeout <= 0 {
		timeout = guest.DefaultExecTimeout
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	ctx, cancel, err := a.placeLocked(s, req.ID)
	if err != nil {
		return err
	}
	go func() {
		limited, stop := context.WithTimeoutCause(ctx, timeout, tooLong(timeout))
		defer stop()
		result, err := a.handler.exec(limited, req)
		cancel(nil)
		a.mu.Lock()
		delete(s.execs, req.ID)
		a.mu.Unlock()
		answer := guest.Answer{ID: req.ID, Error: drover.AsError(err)}
		if err == nil {
			answer.Exec = &result
		}
		a.answer(s, answer, "")
	}()
	return nil
}

// placeLocked takes one of the places for commands. The caller frees it when the command has ended.
func (a *agent) placeLocked(s *session, id uint64) (context.Context, context.CancelCauseFunc, error) {
	if len(s.execs) >= guest.MaxExecs {
		return nil, nil, drover.Errorf(drover.Exhausted, "%d commands are running in this machine already", guest.MaxExecs).
			WithHint("wait until one has ended")
	}
	if s.execs[id] != nil {
		return nil, nil, drover.Errorf(drover.Conflict, "request %d is running already", id)
	}
	ctx, cancel := context.WithCancelCause(s.ctx)
	s.execs[id] = cancel
	return ctx, cancel, nil
}

// cancel kills a command; one that has ended meanwhile needs no killing.
func (a *agent) cancel(s *session, id uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if cancel := s.execs[id]; cancel != nil {
		cancel(drover.Errorf(drover.Canceled, "the host canceled it"))
	}
}

// answer sends an answer to the client of the session, if it is still there. One that does not get through is lost, and so is the
// session: the client sees no answer, and begins another.
func (a *agent) answer(s *session, answer guest.Answer, before string) {
	frame, err := guest.EncodeFrame(answer)
	if err != nil {
		frame, err = guest.EncodeFrame(guest.Answer{ID: answer.ID, Error: drover.AsError(err)})
	}
	if err != nil {
		console("cannot answer request %d: %v", answer.ID, err)
		return
	}
	a.write(s, append([]byte(before), frame...))
}

// write writes a whole frame to the client of the session; false when it is not there any more.
func (a *agent) write(s *session, frame []byte) bool {
	a.sending.Lock()
	defer a.sending.Unlock()
	a.mu.Lock()
	current := a.session == s
	a.mu.Unlock()
	if !current {
		return false
	}
	if err := a.port.write(frame, answerPatience); err != nil {
		a.port.forget() // the next session begins with Magic, so a frame may be cut here
		if !errors.Is(err, errHostGone) {
			console("cannot write to the host: %v", err)
		}
		a.replace(nil)
		return false
	}
	return true
}
