package sockets

import (
	"errors"
	"os"

	"drover"
)

// Held is a unix socket that outlives those who serve it: who connects while none does waits for the next one. It is for who starts that process.
type Held struct {
	path string
	file *os.File
}

// Hold returns the socket with the path; File makes it.
func Hold(path string) *Held { return &Held{path: path} }

// File is the socket, for the next process that serves it. It is made at the first call, and anew when its path does not lead to a socket any more.
func (h *Held) File() (*os.File, error) {
	if h.file != nil {
		if found, err := held(h.path); err != nil || found {
			return h.file, err
		}
		// Who is waiting there is told by the end of the connection, and looks for the new one.
		if err := h.Close(); err != nil {
			return nil, err
		}
	}
	l, err := Listen(h.path)
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	file, err := l.File()
	if err := errors.Join(err, l.Close()); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot hold the socket %s: %w", h.path, err)
	}
	h.file = file
	return file, nil
}

// Close lets the socket go: who waits is told, and nobody can connect any more unless a process still serves it.
func (h *Held) Close() error {
	if h.file == nil {
		return nil
	}
	file := h.file
	h.file = nil
	return file.Close()
}
