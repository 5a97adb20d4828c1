package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"drover/guest"
)

// mkfsTimeout bounds the making of a file system.
const mkfsTimeout = 2 * time.Minute

// volume is a volume of the config with the disk it is on.
type volume struct {
	guest.Volume
	device string
	// fresh: its file system was made in this boot.
	fresh bool
}

// prepareVolumes finds the volumes' disks, mends file systems that need it, and makes one on disks that are blank and may get one. Anything else that is
// not ext4 is refused. This happens before the root disk becomes "/", because mke2fs and e2fsck are in the initial RAM disk.
func prepareVolumes(cfg []guest.Volume, m *mender) ([]volume, error) {
	var volumes []volume
	for i, v := range cfg {
		device, err := findDisk(guest.VolumeSerial(i), v.Name, i+2)
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
		kind, looks, err := inspectDisk(device)
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
		fresh := false
		switch {
		case kind == contentExt4:
			if err := m.mend("volume "+v.Name, device); err != nil {
				return nil, err
			}
		case kind == contentOther:
			return nil, fmt.Errorf("volume %s has no ext4 file system but %s; it is left as it is", v.Name, looks)
		case !v.MkFS:
			return nil, fmt.Errorf("volume %s is blank, but was used before: its data is not there; it is left as it is", v.Name)
		default:
			if err := makeFilesystem(device, m.procs); err != nil {
				return nil, fmt.Errorf("volume %s: %w", v.Name, err)
			}
			fresh = true
		}
		volumes = append(volumes, volume{Volume: v, device: device, fresh: fresh})
	}
	return volumes, nil
}

// makeFilesystem makes an ext4 file system on a blank disk.
func makeFilesystem(device string, procs *processes) error {
	// assume_storage_prezeroed: a blank layer reads as zeroes, so neither inode tables nor journal are written. -m 0: the volume is
	// the machine's own, nothing is kept back for root. A small journal: it is written over and over, so all of it
	// would be data to copy when the machine moves.
	args := []string{"mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-E", "nodiscard,assume_storage_prezeroed=1"}
	size, err := diskSize(device)
	if err != nil {
		return err
	}
	if size >= 512<<20 {
		args = append(args, "-J", "size=16")
	}
	args = append(args, device)
	code, said, err := runTool(procs, mkfsTimeout, args...)
	if err != nil {
		return fmt.Errorf("cannot make a file system on %s: %w", device, err)
	}
	if code != 0 {
		return fmt.Errorf("mke2fs on %s failed with code %d: %s", device, code, said)
	}
	return nil
}

func diskSize(device string) (size int64, err error) {
	f, err := os.Open(device)
	if err != nil {
		return 0, fmt.Errorf("cannot open %s: %w", device, err)
	}
	defer f.Close() // only read
	if size, err = f.Seek(0, io.SeekEnd); err != nil {
		return 0, fmt.Errorf("cannot learn the size of %s: %w", device, err)
	}
	return size, nil
}
