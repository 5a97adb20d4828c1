package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover"
)

// The rack and each host's first process listen on a unix socket for one request per connection: one JSON object, answered by one.
// A request may carry file descriptors.

// Bounds of the protocol.
const (
	maxRequest = 1 << 20
	maxFiles   = 3
	// ctlDeadline bounds sending a request and reading one; an answer may take as long as the caller's context allows.
	ctlDeadline = 5 * time.Second
)

// request is what is asked. Which fields matter depends on Op.
type request struct {
	Op   string        `json:"op"`
	Host drover.HostID `json:"host,omitempty"`
	Link Link          `json:"link,omitzero"`
	// Leave is how much of a host's disk is left free by filling it.
	Leave drover.Bytes `json:"leave,omitempty"`
	// Service names one of a host's services.
	Service string `json:"service,omitempty"`
	// Args, Env and Dir describe a command to be run in a host; its files come with the request.
	Args []string `json:"args,omitempty"`
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir,omitempty"`
}

// answer is what came of it.
type answer struct {
	Error *drover.Error `json:"error,omitempty"`
	Rack  *rackStatus   `json:"rack,omitempty"`
	// Services is a host's own view of its services.
	Services []ServiceStatus `json:"services,omitempty"`
	ExitCode int             `json:"exit_code,omitempty"`
}

// dialDir connects to a socket in a directory whose path may be longer than a socket address may be: the socket is named through the
// directory's descriptor.
func dialDir(ctx context.Context, dir, name string) (*net.UnixConn, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name))
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// listenDir makes a socket in a directory, in place of one that a dead process left.
func listenDir(dir, name string) (*net.UnixListener, error) {
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name)})
	if err != nil {
		return nil, err
	}
	// The name holds a descriptor that is closed by now; removing the socket is left to the next listenDir.
	l.SetUnlinkOnClose(false)
	return l, os.Chmod(filepath.Join(dir, name), 0o600)
}

// ask sends a request with files and waits for the answer until ctx ends. An error that the other side answered is returned as it is;
// Unavailable when nobody listens.
func ask(ctx context.Context, dir, name string, req request, files ...*os.File) (*answer, error) {
	conn, err := dialDir(ctx, dir, name)
	if err != nil {
		return nil, drover.Errorf(drover.Unavailable, "nobody listens on %s: %w", filepath.Join(dir, name), err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	data, err := json.Marshal(req)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot encode the request %q: %w", req.Op, err)
	}
	var rights []byte
	if len(files) > 0 {
		var fds []int
		for _, f := range files {
			fds = append(fds, int(f.Fd()))
		}
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := conn.WriteMsgUnix(append(data, '\n'), rights, nil); err != nil {
		return nil, drover.Errorf(drover.Unavailable, "cannot send the request %q: %w", req.Op, err)
	}
	var a answer
	if err := json.NewDecoder(io.LimitReader(conn, maxRequest)).Decode(&a); err != nil {
		if ctx.Err() != nil {
			return nil, drover.Errorf(drover.Unavailable, "no answer to %q from %s: %w", req.Op, filepath.Join(dir, name), context.Cause(ctx))
		}
		return nil, drover.Errorf(drover.Unavailable, "no answer to %q from %s: %w", req.Op, filepath.Join(dir, name), err)
	}
	if a.Error != nil {
		return nil, a.Error
	}
	return &a, nil
}

// readRequest reads what ask sent. The caller closes the files.
func readRequest(conn *net.UnixConn) (req request, files []*os.File, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(ctlDeadline)); err != nil {
		return req, nil, err
	}
	data := make([]byte, 64<<10)
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, _, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		return req, nil, err
	}
	if files, err = filesFrom(oob[:oobn]); err != nil {
		return req, nil, err
	}
	// A long request comes in more parts than one; only the first can carry files.
	rest := io.MultiReader(bytes.NewReader(data[:n]), io.LimitReader(conn, maxRequest))
	if err := json.NewDecoder(rest).Decode(&req); err != nil {
		closeAll(files)
		return req, nil, err
	}
	return req, files, conn.SetReadDeadline(time.Time{})
}

func filesFrom(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// serveCtl answers requests until the listener is closed, each in a goroutine of its own, and returns when all have ended. The
// handler's context ends when the caller hangs up.
func serveCtl(ctx context.Context, l *net.UnixListener, handle func(ctx context.Context, req request, files []*os.File) (answer, error)) {
	var g sync.WaitGroup
	defer g.Wait()
	for {
		conn, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // a caller that hung up at once
		}
		g.Go(func() {
			defer conn.Close()
			req, files, err := readRequest(conn)
			if err != nil {
				return // nobody who speaks the protocol
			}
			defer closeAll(files)
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			hungUp := make(chan struct{})
			go func() { // ends with the connection, at the latest when it is closed below
				defer close(hungUp)
				defer cancel()
				io.Copy(io.Discard, conn)
			}()
			a, err := handle(ctx, req, files)
			if err != nil {
				a.Error = drover.AsError(err)
			}
			conn.SetWriteDeadline(time.Now().Add(ctlDeadline))
			json.NewEncoder(conn).Encode(a) // a caller that is gone does not hear it
			conn.Close()
			<-hungUp
		})
	}
}

// peerPID returns the process that listens on a socket, as this process sees it.
func peerPID(conn *net.UnixConn) (int, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return int(cred.Pid), nil
}
