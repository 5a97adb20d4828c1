package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/guest"
)

// lingerWait is how long output is still read after a command ended: what it left in the background may hold it open for ever.
const lingerWait = 500 * time.Millisecond

// tooLong is why a command is ended that takes longer than it may.
func tooLong(limit time.Duration) error {
	return drover.Errorf(drover.Canceled, "it ran longer than %s", limit).WithField(drover.TimeoutField)
}

// execCommand runs a command as root beside the main process and returns what it left. It is killed when ctx ends.
func execCommand(ctx context.Context, procs *processes, req guest.Request, dir string, env []string) (drover.ExecResult, error) {
	env = mergeEnv(append(append([]string(nil), env...), req.Env...))
	file, err := findProgram(req.Argv[0], dir, env)
	if err != nil {
		return notRun(err), nil
	}
	stdin, err := newInput(req.Stdin)
	if err != nil {
		return drover.ExecResult{}, err
	}
	stdout, err := newOutput()
	if err != nil {
		return drover.ExecResult{}, errors.Join(err, stdin.close())
	}
	stderr, err := newOutput()
	if err != nil {
		return drover.ExecResult{}, errors.Join(err, stdin.close(), stdout.close())
	}
	proc, startErr := procs.start(command{path: file, argv: req.Argv, env: env, dir: dir,
		files: [3]int{stdin.fd, stdout.fd, stderr.fd}})
	stdin.start()
	stdout.start()
	stderr.start()
	if startErr != nil {
		err := errors.Join(stdin.close(), stdout.close(), stderr.close())
		return notRun(explainExec(req.Argv[0], startErr)), err
	}
	var killErr error
	select {
	case <-proc.done:
	case <-ctx.Done():
		killErr = procs.killGroup(proc)
		<-proc.done // SIGKILL cannot be refused
	}
	stdout.finish()
	stderr.finish()
	if err := errors.Join(killErr, stdin.close(), stdout.close(), stderr.close()); err != nil {
		return drover.ExecResult{}, err
	}
	if ctx.Err() != nil {
		cause := context.Cause(ctx)
		return drover.ExecResult{}, drover.Errorf(drover.Canceled, "%q was killed: %w", req.Argv[0], cause).WithField(drover.AsError(cause).Field)
	}
	result := drover.ExecResult{Stdout: stdout.data, Stderr: stderr.data, Truncated: stdout.truncated || stderr.truncated}
	result.ExitCode, result.ExitSignal = exitCode(proc.status)
	return result, nil
}

// notRun is the result of a command that cannot be executed, as a shell would tell it.
func notRun(err error) drover.ExecResult {
	return drover.ExecResult{ExitCode: exitCodeOf(err), Stderr: fmt.Appendf(nil, "drover: cannot run the command: %v\n", err)}
}

// input feeds a command's stdin.
type input struct {
	data []byte
	fd   int
	pipe *os.File
	done chan struct{}
}

func newInput(data []byte) (*input, error) {
	in := &input{data: data, done: make(chan struct{})}
	var err error
	if len(data) == 0 {
		in.fd, err = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return in, err
	}
	in.fd, in.pipe, err = inputPipe()
	return in, err
}

// start begins to write, after the command has its end of the pipe.
func (in *input) start() {
	closeFD(in.fd)
	in.fd = -1
	go func() {
		defer close(in.done)
		if in.pipe != nil {
			// A command that does not read all of its input is no error: then this ends with EPIPE.
			_, _ = in.pipe.Write(in.data)
			in.pipe.Close()
		}
	}()
}

// close ends the writing and waits for that.
func (in *input) close() error {
	if in.fd >= 0 {
		return unix.Close(in.fd) // never started
	}
	if in.pipe != nil {
		_ = in.pipe.SetWriteDeadline(time.Now()) // it fails when the writing has ended already, which is what it is for
	}
	<-in.done
	return nil
}

// output keeps the first MaxOutput bytes of a command's stdout or stderr and reads the rest so that the command is not held up.
type output struct {
	fd   int
	pipe *os.File
	done chan struct{}

	data      []byte
	truncated bool
	err       error
}

func newOutput() (*output, error) {
	pipe, fd, err := outputPipe()
	if err != nil {
		return nil, err
	}
	return &output{fd: fd, pipe: pipe, done: make(chan struct{})}, nil
}

// start begins to read, after the command has its end of the pipe.
func (o *output) start() {
	closeFD(o.fd)
	o.fd = -1
	go func() {
		defer close(o.done)
		buffer := make([]byte, 32<<10)
		for {
			n, err := o.pipe.Read(buffer)
			keep := min(n, guest.MaxOutput-len(o.data))
			o.data = append(o.data, buffer[:keep]...)
			o.truncated = o.truncated || keep < n
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, os.ErrClosed) {
					o.err = fmt.Errorf("cannot read a command's output: %w", err)
				}
				return
			}
		}
	}()
}

// finish waits for the end of the output, or for lingerWait.
func (o *output) finish() {
	if err := o.pipe.SetReadDeadline(time.Now().Add(lingerWait)); err != nil {
		return // close does the rest
	}
	<-o.done
}

// close ends the reading.
func (o *output) close() error {
	if o.fd >= 0 {
		return errors.Join(unix.Close(o.fd), o.pipe.Close()) // never started
	}
	err := o.pipe.Close()
	<-o.done
	return errors.Join(o.err, err)
}
