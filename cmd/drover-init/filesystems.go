package main

import (
	"errors"
	"path"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/guest"
)

// FIFREEZE and FITHAW, _IOWR('X', 119, int) and _IOWR('X', 120, int) (Linux include/uapi/linux/fs.h).
const (
	ioctlFreeze = 0xc0045877
	ioctlThaw   = 0xc0045878
)

// filesystems are the volumes' file systems, with those that are frozen.
type filesystems struct {
	volumes []volume

	mu sync.Mutex
	// frozen has the timer of each file system that is frozen, by the volume's name.
	frozen map[string]*time.Timer
}

func newFilesystems(volumes []volume) *filesystems {
	return &filesystems{volumes: volumes, frozen: map[string]*time.Timer{}}
}

func (f *filesystems) find(name string) (volume, error) {
	for _, v := range f.volumes {
		if v.Name == name {
			return v, nil
		}
	}
	return volume{}, drover.Errorf(drover.NotFound, "this machine mounts no volume %q", name)
}

// freeze flushes a file system and holds all writes to it. The timer runs before the freeze, so that nothing can keep it from being
// thawed.
func (f *filesystems) freeze(name string, most time.Duration) error {
	v, err := f.find(name)
	if err != nil {
		return err
	}
	if most <= 0 {
		most = guest.DefaultFreeze
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.frozen[name] != nil {
		return drover.Errorf(drover.Conflict, "volume %q is frozen already", name).WithHint("ask again in a moment")
	}
	timer := time.AfterFunc(min(most, guest.MaxFreeze), func() {
		if err := f.thaw(name); err != nil && !drover.Is(err, drover.Precondition) {
			console("%v", err)
		}
	})
	if err := fsIoctl(v, ioctlFreeze); err != nil {
		timer.Stop()
		return drover.Errorf(drover.Unavailable, "cannot freeze the file system of volume %q: %w", name, err)
	}
	f.frozen[name] = timer
	return nil
}

// thaw lets writes go on.
func (f *filesystems) thaw(name string) error {
	v, err := f.find(name)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	timer := f.frozen[name]
	if timer == nil {
		return drover.Errorf(drover.Precondition, "volume %q is not frozen, or not any more", name)
	}
	timer.Stop()
	delete(f.frozen, name)
	if err := fsIoctl(v, ioctlThaw); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: somebody in the guest did it
		return drover.Errorf(drover.Internal, "cannot thaw the file system of volume %q: %w", name, err)
	}
	return nil
}

// thawAll lets all go on: the machine ends.
func (f *filesystems) thawAll() {
	for _, v := range f.volumes {
		if err := f.thaw(v.Name); err != nil && !drover.Is(err, drover.Precondition) {
			console("%v", err)
		}
	}
}

// growWait bounds the wait for a disk to have its new size: the VMM tells of it by an interrupt.
const growWait = 5 * time.Second

// grow makes a file system as large as its disk, once that has the size.
func (f *filesystems) grow(name string, size drover.Bytes) error {
	v, err := f.find(name)
	if err != nil {
		return err
	}
	err = poll(growWait, func() (bool, error) {
		now, err := diskSize(v.device)
		return drover.Bytes(now) >= size, err
	})
	if err != nil {
		return drover.Errorf(drover.Unavailable, "the disk of volume %q does not have %d bytes yet: %w", name, size, err).WithHint("ask again in a moment")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.frozen[name] != nil {
		return drover.Errorf(drover.Conflict, "volume %q is frozen for a snapshot", name).WithHint("ask again in a moment")
	}
	if err := growFilesystem(v.device, path.Clean("/"+v.Path)); err != nil {
		return drover.Errorf(drover.Internal, "%w", err)
	}
	return nil
}

// fsIoctl makes one request of the file system of a volume.
func fsIoctl(v volume, request uint) error {
	dir, err := unix.Open(path.Clean("/"+v.Path), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer closeFD(dir)
	return unix.IoctlSetInt(dir, request, 0)
}
