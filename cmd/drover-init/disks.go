package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// diskWait bounds the wait for a disk to appear; as a rule it is there as soon as its driver is.
const diskWait = 5 * time.Second

// maxSerial is the length of a serial (VIRTIO_BLK_ID_BYTES).
const maxSerial = 20

// diskName returns the device of the n-th disk of the VM: vda, vdb, …, vdz, vdaa.
func diskName(n int) string {
	name := ""
	for ; n >= 0; n = n/26 - 1 {
		name = string(rune('a'+n%26)) + name
	}
	return "vd" + name
}

// findDisk returns the device of the disk with the serial, or with the disk's own name as its serial: a disk over vhost-user-blk is told by
// the storage daemon what it is, and not by the VMM where it belongs. Where there are no serials, it is the n-th disk.
func findDisk(serial, name string, n int) (string, error) {
	expected := diskName(n)
	var device string
	is := func(text string) bool { return text == serial || text == name[:min(len(name), maxSerial)] }
	err := poll(diskWait, func() (bool, error) {
		if text, err := diskSerial(expected); err == nil && (is(text) || text == "") {
			device = "/dev/" + expected
			return true, nil
		}
		disks, err := filepath.Glob("/sys/block/vd*")
		if err != nil {
			return false, err
		}
		for _, disk := range disks {
			if text, err := diskSerial(filepath.Base(disk)); err == nil && text != "" && is(text) {
				device = "/dev/" + filepath.Base(disk)
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return "", fmt.Errorf("the VM has no disk %q: %w", serial, err)
	}
	return device, nil
}

func diskSerial(disk string) (string, error) {
	text, err := os.ReadFile("/sys/block/" + disk + "/serial")
	return strings.TrimRight(string(text), "\x00\n "), err
}

// content is what a disk holds, as far as drover-init must know.
type content int

const (
	contentBlank content = iota
	contentExt4
	contentOther
)

// edge is how much of the start and the end of a disk must be zero for it to count as blank: every file system, partition table and
// volume manager has its mark there.
const edge = 1 << 20

// extMagic is the mark of ext2, ext3 and ext4 in the superblock, which is at 1024 (Linux Documentation/filesystems/ext4/super.rst).
const (
	superblockAt = 1024
	extMagicAt   = superblockAt + 0x38
	extMagic     = 0xef53
)

// inspectDisk tells what is on a disk, and for contentOther what it looks like.
func inspectDisk(device string) (kind content, looks string, err error) {
	f, err := os.Open(device)
	if err != nil {
		return 0, "", fmt.Errorf("cannot open %s: %w", device, err)
	}
	defer f.Close() // only read
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, "", fmt.Errorf("cannot read %s: %w", device, err)
	}
	kind, looks, err = inspectContent(f, size)
	if err != nil {
		return 0, "", fmt.Errorf("cannot read %s: %w", device, err)
	}
	return kind, looks, nil
}

// inspectContent reads as little as it can: a disk with a file system is known by its first 4 KiB.
func inspectContent(r io.ReaderAt, size int64) (content, string, error) {
	head := make([]byte, min(size, edge))
	first := head[:min(len(head), 4096)]
	if _, err := r.ReadAt(first, 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, "", err
	}
	if len(first) >= extMagicAt+2 && binary.LittleEndian.Uint16(first[extMagicAt:]) == extMagic {
		return contentExt4, "", nil
	}
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, "", err
	}
	if !allZero(head) {
		return contentOther, looksLike(head), nil
	}
	tail := head[:min(size, edge)]
	if _, err := r.ReadAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return 0, "", err
	}
	if !allZero(tail) {
		return contentOther, "unknown data at its end", nil
	}
	return contentBlank, "", nil
}

func allZero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// looksLike names what the start of a disk looks like.
func looksLike(head []byte) string {
	for _, mark := range []struct {
		at    int
		bytes string
		name  string
	}{
		{0, "XFSB", "an XFS file system"},
		{0x10040, "_BHRfS_M", "a Btrfs file system"},
		{0, "LUKS\xba\xbe", "LUKS encrypted data"},
		{0, "hsqs", "a squashfs file system"},
		{0x400, "\xe2\xe1\xf5\xe0", "an EROFS file system"},
		{0xff6, "SWAPSPACE2", "swap space"},
		{0x218, "LVM2", "an LVM physical volume"},
		{0x200, "EFI PART", "a partition table"},
		{0x1fe, "\x55\xaa", "a partition table or boot sector"},
	} {
		if end := mark.at + len(mark.bytes); end <= len(head) && string(head[mark.at:end]) == mark.bytes {
			return mark.name
		}
	}
	return "unknown data"
}

// ext4IocResizeFS is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64) (Linux include/uapi/linux/ext4.h).
const ext4IocResizeFS = 0x40086610

// growFilesystem makes the mounted ext4 file system as large as its disk, if the disk has grown.
func growFilesystem(device, path string) error {
	f, err := os.Open(device)
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", device, err)
	}
	defer f.Close() // only read
	size, err := diskSize(device)
	if err != nil {
		return err
	}
	super := make([]byte, 1024)
	if _, err := f.ReadAt(super, superblockAt); err != nil {
		return fmt.Errorf("cannot read the superblock of %s: %w", device, err)
	}
	has, block := extSize(super)
	want := uint64(size) / block
	if want <= has {
		return nil
	}
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot grow the file system on %s: %w", path, err)
	}
	defer closeFD(dir)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(dir), ext4IocResizeFS, uintptr(unsafe.Pointer(&want)))
	if errno != 0 {
		return fmt.Errorf("cannot grow the file system on %s from %d to %d blocks of %d: %w", path, has, want, block, errno)
	}
	return nil
}

// extSize reads the number of blocks and their size out of an ext4 superblock.
func extSize(super []byte) (blocks, size uint64) {
	const incompat64Bit = 0x80
	blocks = uint64(binary.LittleEndian.Uint32(super[0x4:]))
	if binary.LittleEndian.Uint32(super[0x60:])&incompat64Bit != 0 {
		blocks |= uint64(binary.LittleEndian.Uint32(super[0x150:])) << 32
	}
	return blocks, 1024 << min(binary.LittleEndian.Uint32(super[0x18:]), 6)
}
