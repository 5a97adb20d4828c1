package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover"
)

// swapFile is where the machine's memory goes that has no room: on the root disk, so that it is part of what moves.
const swapFile = "/.drover-swap"

// swapPage is the unit of a swap file on this kind of CPU.
const swapPage = 4096

// swapDiscard gives the blocks of a swap file back to the host when it begins to be used: nothing that is in it counts any more
// (SWAP_FLAG_DISCARD and SWAP_FLAG_DISCARD_ONCE).
const swapDiscard = 0x10000 | 0x20000

// setUpSwap makes the swap file as large as asked, or removes it, and lets the kernel use it.
func setUpSwap(size drover.Bytes) error {
	if size <= 0 {
		if err := os.Remove(swapFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove the swap file: %w", err)
		}
		return nil
	}
	if err := makeSwap(swapFile, int64(size)); err != nil {
		return fmt.Errorf("cannot make a swap file of %d MiB on the root disk: %w", size/drover.MiB, err)
	}
	if err := swapCall(unix.SYS_SWAPON, swapDiscard); err != nil {
		return fmt.Errorf("cannot use the swap file: %w", err)
	}
	return nil
}

// endSwap lets go of the swap file, without which the root disk cannot be made read-only.
func endSwap() error {
	err := swapCall(unix.SYS_SWAPOFF, 0)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil // there is none
	}
	return err
}

func swapCall(call, flags uintptr) error {
	name, err := unix.BytePtrFromString(swapFile)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(call, uintptr(unsafe.Pointer(name)), flags, 0); errno != 0 {
		return errno
	}
	return nil
}

// makeSwap writes a swap file.
func makeSwap(path string, size int64) error {
	size -= size % swapPage
	header := swapHeader(size)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = func() error {
		if err := f.Truncate(size); err != nil {
			return err
		}
		// A swap file may have no holes; what is only allocated takes no room on the host.
		if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
			return err
		}
		if _, err := f.WriteAt(header, 0); err != nil {
			return err
		}
		return f.Sync()
	}()
	return errors.Join(err, f.Close())
}

// swapHeader is the first page of a swap area (include/linux/swap.h of the kernel, union swap_header).
func swapHeader(size int64) []byte {
	page := make([]byte, swapPage)
	binary.LittleEndian.PutUint32(page[1024:], 1)                       // version
	binary.LittleEndian.PutUint32(page[1028:], uint32(size/swapPage-1)) // the last page
	copy(page[swapPage-10:], "SWAPSPACE2")
	return page
}
