package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"drover"
)

// openTerminal makes a pseudo-terminal: our end, and the command's.
func openTerminal(size drover.TerminalSize) (master *os.File, slave int, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("cannot make a terminal: %w", err)
	}
	err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	number := 0
	if err == nil {
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
	}
	if err == nil {
		slave, err = unix.Open("/dev/pts/"+strconv.Itoa(number), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, -1, errors.Join(fmt.Errorf("cannot make a terminal: %w", err), unix.Close(fd))
	}
	master = os.NewFile(uintptr(fd), "terminal") // not blocking, so that reads and writes end when it is closed
	if err := setSize(master, size); err != nil {
		closeFD(slave)
		return nil, -1, errors.Join(err, master.Close())
	}
	return master, slave, nil
}

// openLogTerminal makes a terminal for a process of the user whose output is logged: lines end in a newline alone.
func openLogTerminal(uid, gid uint32) (master *os.File, slave int, err error) {
	master, slave, err = openTerminal(drover.TerminalSize{Rows: 24, Columns: 80})
	if err != nil {
		return nil, -1, err
	}
	err = unix.Fchown(slave, int(uid), int(gid))
	if err == nil {
		var settings *unix.Termios
		if settings, err = unix.IoctlGetTermios(slave, unix.TCGETS); err == nil {
			settings.Oflag &^= unix.ONLCR
			err = unix.IoctlSetTermios(slave, unix.TCSETS, settings)
		}
	}
	if err != nil {
		closeFD(slave)
		return nil, -1, errors.Join(fmt.Errorf("cannot make a terminal: %w", err), master.Close())
	}
	return master, slave, nil
}

// setSize tells a terminal its size, which tells the commands in it. A size of zero is left as it is.
func setSize(master *os.File, size drover.TerminalSize) error {
	if size.Rows == 0 || size.Columns == 0 {
		return nil
	}
	raw, err := master.SyscallConn()
	if err != nil {
		return fmt.Errorf("cannot set the terminal's size: %w", err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Columns})
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("cannot set the terminal's size: %w", err)
	}
	return nil
}
