package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"drover"
	"drover/internal/durable"
)

// fenceVersion is the version of a fence's file.
const fenceVersion = 1

// fenceRecord is the durable form of a fence: fences/DISK.json. It outlives the disk's layers.
type fenceRecord struct {
	Version  int           `json:"version"`
	Disk     drover.DiskID `json:"disk"`
	Epoch    drover.Epoch  `json:"epoch"`
	Checksum string        `json:"checksum"`
}

func (r fenceRecord) sum() string {
	return fmt.Sprintf("%08x", crc32.Checksum(fmt.Appendf(nil, "%d %s %d", r.Version, r.Disk, r.Epoch), crcTable))
}

func parseFence(b []byte) (fenceRecord, error) {
	var r fenceRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("the fence is damaged: %w", err)
	}
	if r.Version != fenceVersion {
		return r, fmt.Errorf("the fence has version %d; this program knows version %d", r.Version, fenceVersion)
	}
	if r.sum() != r.Checksum {
		return r, fmt.Errorf("the fence is damaged: checksum %s where %s is expected", r.Checksum, r.sum())
	}
	return r, nil
}

// fences keeps the highest epoch that was ever told of each disk.
type fences struct {
	dir     string
	reserve *reserve

	mu    sync.Mutex
	known map[drover.DiskID]drover.Epoch
}

// epoch returns the disk's fence, 0 if none was set. A fence that cannot be read is an error: nobody may write then.
func (f *fences) epoch(disk drover.DiskID) (drover.Epoch, error) {
	f.mu.Lock()
	e, ok := f.known[disk]
	f.mu.Unlock()
	if ok {
		return e, nil
	}
	b, err := os.ReadFile(f.path(disk))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	var r fenceRecord
	if err == nil {
		r, err = parseFence(b)
	}
	if err == nil && r.Disk != disk {
		err = fmt.Errorf("it is that of disk %q", r.Disk)
	}
	if err != nil {
		return 0, drover.Errorf(drover.Internal, "cannot read the fence of disk %s at %s: %w", disk, f.path(disk), err)
	}
	f.remember(disk, r.Epoch)
	return r.Epoch, nil
}

// raise makes the fence at least the epoch, durably. The caller keeps others away from the disk.
func (f *fences) raise(disk drover.DiskID, epoch drover.Epoch) error {
	known, err := f.epoch(disk)
	if err != nil || known >= epoch {
		return err
	}
	r := fenceRecord{Version: fenceVersion, Disk: disk, Epoch: epoch}
	r.Checksum = r.sum()
	if err := f.reserve.with(func() error { return durable.WriteJSON(f.path(disk), r, 0o600) }); err != nil {
		return drover.Errorf(drover.Internal, "cannot raise the fence of disk %s to %d: %w", disk, epoch, err)
	}
	f.remember(disk, epoch)
	return nil
}

func (f *fences) remember(disk drover.DiskID, epoch drover.Epoch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known[disk] = max(f.known[disk], epoch)
}

func (f *fences) path(disk drover.DiskID) string { return filepath.Join(f.dir, string(disk)+".json") }
