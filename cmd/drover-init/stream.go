package main

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"drover"
	"drover/guest"
	"drover/internal/frames"
)

// hangUpWait is how long a command that was hung up on may still run.
const hangUpWait = 2 * time.Second

// errHungUp is the cause of a stream's end when its client has left.
var errHungUp = errors.New("whoever started it has left")

// agentStream is the guest's end of a stream.
type agentStream struct {
	agent   *agent
	session *session
	id      uint64
	queue   *frames.Queue
}

var _ frames.Conn = (*agentStream)(nil)

// Send sends the client a frame, as long as it is there.
func (s *agentStream) Send(_ context.Context, f frames.Frame) error {
	if !s.agent.write(s.session, guest.EncodeStream(s.id, f)) {
		return errHungUp
	}
	return nil
}

// Receive returns the client's next frame.
func (s *agentStream) Receive(ctx context.Context) (frames.Frame, error) { return s.queue.Get(ctx) }

// Close ends what is received.
func (s *agentStream) Close() error {
	s.queue.End(io.EOF)
	return nil
}

// startStream starts a command with a stream, and answers once frames can be sent to it.
func (a *agent) startStream(s *session, req guest.Request) error {
	a.mu.Lock()
	ctx, cancel, err := a.placeLocked(s, req.ID)
	if err != nil {
		a.mu.Unlock()
		return err
	}
	stream := &agentStream{agent: a, session: s, id: req.ID, queue: frames.NewQueue()}
	s.streams[req.ID] = stream
	a.mu.Unlock()
	go func() {
		a.answer(s, guest.Answer{ID: req.ID}, "")
		limited, stop := ctx, context.CancelFunc(func() {})
		if limit := time.Duration(req.Timeout); limit > 0 {
			limited, stop = context.WithTimeoutCause(ctx, limit, tooLong(limit))
		}
		defer stop()
		exit, err := a.handler.stream(limited, req, stream)
		last := frames.NewExit(exit)
		if err != nil {
			last = frames.NewFail(err)
		}
		cancel(nil)
		a.mu.Lock()
		delete(s.execs, req.ID)
		delete(s.streams, req.ID)
		a.mu.Unlock()
		_ = stream.Send(ctx, last) // a client that has left needs no end
	}()
	return nil
}

// receivedFrame takes a frame of the client for a stream; one of a stream that has ended is dropped. It never waits.
func (a *agent) receivedFrame(s *session, id uint64, f frames.Frame) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s.heard++
	stream := s.streams[id]
	if stream != nil && !stream.queue.Put(f) {
		s.execs[id](drover.Errorf(drover.Internal, "the client sent more than there is room for"))
	}
}

// streamCommand runs a command as root beside the main process, whose input and output go by conn, until it has ended or ctx ends.
func streamCommand(ctx context.Context, procs *processes, req guest.Request, dir string, env []string, conn frames.Conn) (drover.StreamExit, error) {
	env = mergeEnv(append(append([]string(nil), env...), req.Env...))
	argv := req.Argv
	if len(argv) == 0 {
		argv = shell(dir, env)
	}
	refuse := func(err error) (drover.StreamExit, error) {
		text := notRun(err)
		return drover.StreamExit{ExitCode: text.ExitCode}, conn.Send(ctx, frames.Frame{Kind: frames.Stderr, Data: text.Stderr})
	}
	file, err := findProgram(argv[0], dir, env)
	if err != nil {
		return refuse(err)
	}
	ends, err := openEnds(req)
	if err != nil {
		return drover.StreamExit{}, err
	}
	proc, startErr := procs.start(command{path: file, argv: argv, env: env, dir: dir, files: ends.child, terminal: req.Terminal})
	ends.closeChild()
	if startErr != nil {
		ends.close()
		return refuse(explainExec(argv[0], startErr))
	}
	w := &streamed{conn: conn, window: frames.NewWindow(), ends: ends, procs: procs, proc: proc}
	return w.run(ctx, argv[0])
}

// shell is what runs when no command is given.
func shell(dir string, env []string) []string {
	for _, name := range []string{"bash", "sh"} {
		if _, err := findProgram(name, dir, env); err == nil {
			return []string{name}
		}
	}
	return []string{"/bin/sh"}
}

// ends are those of a command's streams: the command's own, and ours. Without a terminal output has stdout and stderr; with one, input and
// the only output are the same file.
type ends struct {
	child  [3]int
	input  *os.File
	output []*os.File
	master *os.File // nil without a terminal
}

func openEnds(req guest.Request) (*ends, error) {
	if req.Terminal {
		master, slave, err := openTerminal(req.TerminalSize)
		if err != nil {
			return nil, err
		}
		return &ends{child: [3]int{slave, slave, slave}, input: master, output: []*os.File{master}, master: master}, nil
	}
	e := &ends{child: [3]int{-1, -1, -1}}
	var err error
	if e.child[0], e.input, err = inputPipe(); err != nil {
		return nil, err
	}
	for i := 1; i <= 2; i++ {
		r, w, err := outputPipe()
		if err != nil {
			e.closeChild()
			e.close()
			return nil, err
		}
		e.child[i], e.output = w, append(e.output, r)
	}
	return e, nil
}

// closeChild closes the command's ends, which it has got.
func (e *ends) closeChild() {
	for i, fd := range e.child {
		if fd >= 0 && (i == 0 || fd != e.child[0]) {
			closeFD(fd)
		}
	}
}

// close closes ours. A terminal is hung up by that.
func (e *ends) close() {
	e.input.Close() // may be closed already
	for _, f := range e.output {
		f.Close()
	}
}
