package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/guest"
)

// mender checks file systems before they are mounted, where that is needed.
//
// The kernel replays a journal by itself, but it does not repair: a file system whose journal ended with an error of the disk,
// such as a write that a full host refused, goes read-only at the first allocation after every mount, for ever.
type mender struct {
	procs *processes
	// checking is called before the first check of a boot that may take long.
	checking func(disk string)
	// mended says what was found and repaired, for the machine's log.
	mended []string
}

// Bits of an ext4 superblock (Linux Documentation/filesystems/ext4/super.rst).
const (
	stateAt         = 0x3a
	stateClean      = 0x1
	stateErrors     = 0x2
	incompatAt      = 0x60
	incompatRecover = 0x4
)

// The exit codes of e2fsck, which are bits (e2fsck(8), EXIT CODE).
const (
	fsckMended = 0x1
	// fsckReboot asks for a new start after the root file system was repaired while it was mounted; here none is.
	fsckReboot = 0x2
)

// fsState is what a superblock tells of a file system that is not mounted.
type fsState struct {
	// interrupted: it was not unmounted, as after a power cut, and its journal is to be replayed.
	interrupted bool
	// faulty: an error was met while it was mounted, or it has no journal and was not unmounted.
	faulty bool
}

// readState looks at the superblock of a disk.
func readState(device string) (fsState, error) {
	f, err := os.Open(device)
	if err != nil {
		return fsState{}, fmt.Errorf("cannot open %s: %w", device, err)
	}
	defer f.Close() // only read
	super := make([]byte, incompatAt+4)
	if _, err := f.ReadAt(super, superblockAt); err != nil {
		return fsState{}, fmt.Errorf("cannot read the superblock of %s: %w", device, err)
	}
	return stateOf(super), nil
}

func stateOf(super []byte) fsState {
	state := binary.LittleEndian.Uint16(super[stateAt:])
	return fsState{faulty: state&stateErrors != 0 || state&stateClean == 0,
		interrupted: binary.LittleEndian.Uint32(super[incompatAt:])&incompatRecover != 0}
}

// mend repairs the ext4 file system of a disk, if it needs that, as far as it can be done without a decision of somebody (e2fsck -p). One that is beyond
// that, or cannot be checked now, is left to the kernel, which mounts it and stops writing at the first error: what is on it can be read.
//
// The journal is always replayed by the kernel. It keeps the journal when a block cannot be written now, as on a host that is full; e2fsck forgets it
// all the same, and with it what was promised.
func (m *mender) mend(disk, device string) error {
	c, err := readState(device)
	if err == nil && c.interrupted {
		if err = replay(device); err == nil {
			c, err = readState(device)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", disk, err)
	}
	if c.interrupted {
		return fmt.Errorf("%s: the kernel left the journal of %s as it was", disk, device)
	}
	if !c.faulty {
		return nil
	}
	m.checking(disk)
	code, said, err := runTool(m.procs, guest.CheckDeadline, "e2fsck", "-p", device)
	said = strings.Join(strings.FieldsFunc(said, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	switch {
	case err != nil:
		m.say("%s: its file system was not checked: %v", disk, err)
	case code&^(fsckMended|fsckReboot) != 0:
		m.say("%s: its file system has errors that are not repaired without a decision; it is mounted as it is, and becomes read-only at the first of them (e2fsck -p ended with code %d: %s)", disk, code, said)
	case code&fsckMended != 0:
		m.say("%s: its file system had errors and was repaired (e2fsck -p: %s)", disk, said)
	}
	return nil
}

// replay makes the kernel replay the journal, which it also does when nothing else is to be written, and mark the file system as one that met an error if the
// journal says so.
func replay(device string) error {
	if err := unix.Mount(device, newRoot, "ext4", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("cannot replay the journal of %s: %w", device, err)
	}
	if err := unix.Unmount(newRoot, 0); err != nil {
		return fmt.Errorf("cannot unmount %s: %w", device, err)
	}
	return nil
}

func (m *mender) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	console("%s", text)
	m.mended = append(m.mended, text)
}

// newMender returns one that tells the host of a check that may take long, and gives the boot the time for it.
func newMender(b *boot, watchdog *time.Timer) *mender {
	return &mender{procs: b.procs, checking: func(disk string) {
		b.report.emit(guest.StatusEvent{Event: guest.EventChecking, Stage: "check the file system of " + disk})
		watchdog.Reset(guest.CheckDeadline)
	}}
}
