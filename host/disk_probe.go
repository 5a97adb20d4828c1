package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover"
)

const (
	// diskEvery is the pause between two trials of the disk, diskStall how long one may take: a disk that is merely busy takes a second or two.
	diskEvery = 5 * time.Second
	diskStall = 20 * time.Second
	// diskProbeFile is what is written and read; diskProbeSize is one block.
	diskProbeFile = "disk-probe"
	diskProbeSize = int(drover.BlockSize)
)

// diskTrial knows how the disk does. A disk that hangs is the worst kind of broken: the host answers, its machines look well, and nothing that they
// write ends. Only somebody who writes notices.
type diskTrial struct {
	mu sync.Mutex
	// begun is when the trial began that is under way; zero for none. Its monotonic part counts: clocks are put right while disks hang.
	begun time.Time
	// err is how the last one ended.
	err error
}

// diskLoop tries the disk again and again. It hangs when the disk does.
func (a *Agent) diskLoop(ctx context.Context) {
	for ctx.Err() == nil {
		a.trial.begin(time.Now())
		err := a.cfg.DiskProbe(a.cfg.DataDir)
		a.trial.end(err)
		pause(ctx, diskEvery)
	}
}

func (d *diskTrial) begin(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begun = now
}

func (d *diskTrial) end(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begun, d.err = time.Time{}, err
}

// findings says what is wrong with the disk.
func (d *diskTrial) findings(now time.Time) []found {
	d.mu.Lock()
	defer d.mu.Unlock()
	if took := now.Sub(d.begun); !d.begun.IsZero() && took >= diskStall {
		return []found{find(drover.DiskStalled, drover.SeverityCritical, "", took.Round(time.Second))}
	}
	if d.err != nil {
		return []found{find(drover.DiskFailing, drover.SeverityCritical, "", d.err)}
	}
	return nil
}

// refusal is why nothing new is to come to the disk; nil when it does well.
func (d *diskTrial) refusal(host drover.HostID) *drover.Error {
	for _, f := range d.findings(time.Now()) {
		return drover.Errorf(drover.Unavailable, "host %q: %s", host, f.text)
	}
	return nil
}

// probeDisk writes a block to the disk, past the page cache where that is possible, and reads it back. That there is no room is no fault of the disk.
func probeDisk(dir string) (err error) {
	path := filepath.Join(dir, diskProbeFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_DIRECT, 0o600)
	if errors.Is(err, unix.EINVAL) { // not every file system can
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err != nil {
		return withoutRoom(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := alignedBlock()
	binary.NativeEndian.PutUint64(buf, uint64(time.Now().UnixNano()))
	if _, err := f.WriteAt(buf, 0); err != nil {
		return withoutRoom(err)
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return os.NewSyscallError("fdatasync", err)
	}
	back := alignedBlock()
	if _, err := f.ReadAt(back, 0); err != nil {
		return err
	}
	if !bytes.Equal(buf, back) {
		return drover.Errorf(drover.Internal, "%s reads as something else than what was just written to it", path)
	}
	return nil
}

// withoutRoom takes for well what only wants room: that has conditions of its own.
func withoutRoom(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return nil
	}
	return err
}

// alignedBlock is a block at an address that O_DIRECT takes.
func alignedBlock() []byte {
	b := make([]byte, 2*diskProbeSize)
	at := diskProbeSize - int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))%uintptr(diskProbeSize))
	return b[at%diskProbeSize:][:diskProbeSize:diskProbeSize]
}
