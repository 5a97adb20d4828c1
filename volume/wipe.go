package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"drover/internal/durable"
)

const (
	// wipeSuffix ends the names of directories in the trash whose data is overwritten before they are removed.
	wipeSuffix = ".wipe"
	// wipeRate bounds what is overwritten per second, so that guests hardly notice.
	wipeRate = 128 << 20
	// wipePart is overwritten, made durable and given back at a time. A restart goes on at the next one.
	wipePart  = 16 << 20
	wipeRetry = 30 * time.Second
)

func isToBeWiped(dir string) bool { return strings.HasSuffix(dir, wipeSuffix) }

// wipe overwrites what is in the trash for that, until the pool is closed.
func (p *pool) wipe(ctx context.Context) {
	limit := rate.NewLimiter(wipeRate, maxFetch*blockSize)
	for {
		err := p.wipeTrash(ctx, limit)
		if ctx.Err() != nil {
			return
		}
		retry := time.Duration(0)
		if err != nil {
			retry = wipeRetry
			p.cfg.Log.Warn("deleted layers are not wiped yet", "again_in", retry, "err", err)
		}
		awaitNudge(ctx, p.wiping, retry)
	}
}

// wipeTrash wipes all there is. One that cannot be wiped is not in the way of others.
func (p *pool) wipeTrash(ctx context.Context, limit *rate.Limiter) error {
	entries, err := os.ReadDir(filepath.Join(p.pool, "trash"))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !isToBeWiped(e.Name()) {
			continue
		}
		dir := filepath.Join(p.pool, "trash", e.Name())
		err := p.wipeDir(ctx, dir, limit)
		if err == nil {
			err = durable.Remove(dir)
		}
		if err == nil {
			p.cfg.Log.Info("deleted layer wiped", "dir", e.Name())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// wipeDir overwrites the data files of a directory.
func (p *pool) wipeDir(ctx context.Context, dir string, limit *rate.Limiter) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name, _, _ := strings.Cut(e.Name(), "."); name != dataFile {
			continue
		}
		if err := p.wipeFile(ctx, filepath.Join(dir, e.Name()), limit); err != nil {
			return err
		}
	}
	return nil
}

// wipeFile overwrites all data of a file, durably. A file that has another name is another layer's by now.
func (p *pool) wipeFile(ctx context.Context, path string, limit *rate.Limiter) (err error) {
	opened, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	f := osFile{File: opened}
	defer func() { err = errors.Join(err, f.Close()) }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink > 1 {
		return err
	}
	zeroes := make([]byte, maxFetch*blockSize)
	for off := int64(0); off < st.Size; {
		start, stop, err := f.NextData(off, st.Size)
		if err != nil {
			return err
		}
		stop = min(stop, start+wipePart)
		for at := start; at < stop; at += int64(len(zeroes)) {
			part := zeroes[:min(int64(len(zeroes)), stop-at)]
			if err := limit.WaitN(ctx, len(part)); err != nil {
				return err
			}
			if err := f.WriteAt(part, at); err != nil {
				return err
			}
		}
		if start < stop {
			// Only what is zeroes on the disk is given back.
			if err := errors.Join(f.Datasync(), f.PunchHole(start, stop-start)); err != nil {
				return err
			}
			p.cfg.Faults.Hit("volume.wipe.part")
		}
		off = stop
	}
	return nil
}
