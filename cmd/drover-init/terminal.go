package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// openTerminal makes a terminal for a process of the user: r reads what the process writes, tty is the process's end.
func openTerminal(uid, gid uint32) (r *os.File, tty int, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("cannot make a terminal: %w", err)
	}
	r = os.NewFile(uintptr(fd), "terminal")
	tty, err = prepareTerminal(fd, uid, gid)
	if err != nil {
		return nil, -1, errors.Join(fmt.Errorf("cannot make a terminal: %w", err), r.Close())
	}
	return r, tty, nil
}

func prepareTerminal(fd int, uid, gid uint32) (int, error) {
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return -1, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return -1, err
	}
	name := "/dev/pts/" + strconv.Itoa(n)
	if err := unix.Chown(name, int(uid), int(gid)); err != nil {
		return -1, err
	}
	tty, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	// The log has lines that end in a newline alone.
	settings, err := unix.IoctlGetTermios(tty, unix.TCGETS)
	if err == nil {
		settings.Oflag &^= unix.ONLCR
		err = errors.Join(unix.IoctlSetTermios(tty, unix.TCSETS, settings),
			unix.IoctlSetWinsize(tty, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}))
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(tty))
	}
	return tty, nil
}
