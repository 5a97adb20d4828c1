package vhostuser

import (
	"errors"
	"math"
	"strconv"

	"golang.org/x/sys/unix"
)

// mapFD maps part of a file that another process shares, for reading and writing. Only a file that cannot shrink is mapped: an access to a
// page that is gone would end this process. The descriptor stays the caller's.
func mapFD(fd int, off, size uint64, what string) ([]byte, error) {
	page := uint64(unix.Getpagesize())
	if size == 0 || size > math.MaxInt64/2 || off > math.MaxInt64/2 || off%page != 0 {
		return nil, bad("%s: %d bytes at offset %d cannot be mapped", what, size, off)
	}
	if err := seal(fd); err != nil {
		return nil, bad("%s: the memory could shrink under the mapping: %v", what, err).
			WithHint("share memory of memory-backend-memfd, which QEMU seals")
	}
	var st unix.Stat_t // after the seal: from now on the size is at least this
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, bad("%s: %v", what, err)
	}
	if uint64(st.Size) < off+size {
		return nil, bad("%s: the file has %d bytes where %d at offset %d are expected", what, st.Size, size, off)
	}
	b, err := unix.Mmap(fd, int64(off), int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, bad("%s: cannot map %d bytes: %v", what, size, err)
	}
	return b, nil
}

// seal makes sure that the file cannot be made shorter.
func seal(fd int) error {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err == nil && seals&unix.F_SEAL_SHRINK == 0 {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK)
	}
	return err
}

// newShared makes memory that can be shared with the frontend.
func newShared(name string, size uint64) (fd int, mem []byte, err error) {
	fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, nil, err
	}
	if err = unix.Ftruncate(fd, int64(size)); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err == nil {
		mem, err = mapFD(fd, 0, size, name)
	}
	if err != nil {
		return -1, nil, errors.Join(err, unix.Close(fd))
	}
	return fd, mem, nil
}

func unmap(b []byte) error {
	if b == nil {
		return nil
	}
	return unix.Munmap(b)
}

// closeFD closes a descriptor unless there is none.
func closeFD(fd int) error {
	if fd < 0 {
		return nil
	}
	return unix.Close(fd)
}

// fdPath is where the kernel shows what a descriptor is.
func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
