package vhosttest

import (
	"net"
	"os"
)

// connOf makes a connection of a socket.
func connOf(f *Frontend, fd int) *net.UnixConn {
	f.tb.Helper()
	file := os.NewFile(uintptr(fd), "socket")
	c, err := net.FileConn(file)
	f.check(err)
	f.check(file.Close())
	return c.(*net.UnixConn)
}
