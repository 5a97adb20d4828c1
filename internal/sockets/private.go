// Package sockets makes unix sockets that only their owner may connect to, holds them for a process that may die and be started again, and takes
// over those that a process is started with (sd_listen_fds(3)).
package sockets

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"syscall"

	"drover"
)

// maxPath is how long a unix socket's path may be (unix(7)).
const maxPath = 107

// Listen makes a unix socket that only its owner may connect to, in place of one that is there.
func Listen(path string) (*net.UnixListener, error) {
	if len(path) > maxPath {
		return nil, drover.Errorf(drover.Invalid, "cannot make the socket %s: its path has %d bytes", path, len(path)).
			WithHint("choose a directory with a shorter name: a socket's path may have %d", maxPath)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, drover.Errorf(drover.Internal, "cannot remove the old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot make the socket %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(drover.Errorf(drover.Internal, "cannot protect the socket: %w", err), l.Close())
	}
	return l, nil
}

// held tells whether the path leads to a stream socket that a process has. The question leaves no connection behind: it is put with a socket of
// another type, which the kernel refuses in other words when there is one.
func held(path string) (bool, error) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: path})
	switch {
	case errors.Is(err, syscall.EPROTOTYPE):
		return true, nil
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, drover.Errorf(drover.Internal, "cannot tell whose the socket %s is: %w", path, err)
	}
	return false, conn.Close()
}
