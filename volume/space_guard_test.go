package volume

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"drover"
	"drover/nbd"
)

// Free space is looked at when what was free at the last look may be used up, and not before.
func TestFreeSpaceIsLookedAtSeldom(t *testing.T) {
	free, looks := drover.GiB, 0
	s := newSpace("", 100*drover.MiB, 0)
	s.stat = func(string) (drover.Bytes, drover.Bytes, error) { looks++; return 10 * drover.GiB, free, nil }
	for free > 101*drover.MiB { // every write is one of new blocks
		if !s.take(mib) {
			t.Fatalf("refused with %d bytes free", free)
		}
		free -= drover.MiB
	}
	if looks > 10 {
		t.Errorf("looked %d times for 923 writes", looks)
	}
	free = 100*drover.MiB + drover.BlockSize - 1
	s.look(0) // as watch does: somebody else took the rest
	for range 3 {
		if s.take(blockSize) || !s.full.Load() {
			t.Error("a block was given away that belongs to the floor")
		}
	}
	if free = drover.GiB; !s.take(blockSize) || s.full.Load() {
		t.Error("room that was made is not used")
	}
	for total, want := range map[drover.Bytes]drover.Bytes{100 * drover.MiB: drover.MiB, 100 * drover.GiB: 64 * drover.MiB} {
		if got := drover.PoolFloor(total, 0); got != want {
			t.Errorf("the floor of %d bytes is %d, want %d", total, got, want)
		}
	}
}

// All writes share the patience of the pool: one that stays full refuses at once, also when there is room for a small write now and then.
func TestAPoolThatStaysFullRefusesAtOnce(t *testing.T) {
	free := 8 * drover.MiB
	s := newSpace("", drover.MiB, time.Minute)
	s.stat = func(string) (drover.Bytes, drover.Bytes, error) { return drover.GiB, free, nil }
	begin := time.Unix(1e9, 0)
	refused := func(n int64) {
		t.Helper()
		if s.take(n) {
			t.Fatalf("%d bytes are given away", n)
		}
	}
	refused(64 * mib)
	if got := s.giveUpAt(begin); got != begin.Add(time.Minute) {
		t.Errorf("the first gives up at %v", got)
	}
	if s.look(0); !s.take(mib) {
		t.Error("a small write is refused")
	}
	refused(64 * mib)
	if got := s.giveUpAt(begin.Add(time.Minute / 2)); got != begin.Add(time.Minute) {
		t.Errorf("the second gives up at %v", got)
	}
	free = 100 * drover.MiB
	s.look(0)
	free = 8 * drover.MiB
	s.look(0)
	refused(64 * mib)
	if got := s.giveUpAt(begin.Add(time.Hour)); got != begin.Add(time.Hour+time.Minute) {
		t.Errorf("one after there was room gives up at %v", got)
	}
}

// smallExt4 makes a file system in a file and mounts it. Mounting needs root.
func smallExt4(t *testing.T, size int64) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir, image := shortDir(t), filepath.Join(t.TempDir(), "image")
	noErr(t, os.WriteFile(image, nil, 0o600))
	noErr(t, os.Truncate(image, size))
	for _, command := range [][]string{{"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%v does not work here: %v: %s", command, err, out)
		}
	}
	t.Cleanup(func() { noErr(t, syscall.Unmount(dir, 0)) })
	return dir
}

// onSmallDisks runs a test with a pool on each kind of small file system, of 64 MiB.
func onSmallDisks(t *testing.T, test func(t *testing.T, h *testHost)) {
	for name, mount := range map[string]func(t *testing.T) string{
		"ext4":  func(t *testing.T) string { return smallExt4(t, 64*mib) },
		"tmpfs": func(t *testing.T) string { return smallDisk(t, "size=64m") },
	} {
		t.Run(name, func(t *testing.T) {
			h := prepareHost(t, newCA(t), "h1")
			h.cfg.Dir = filepath.Join(mount(t), "pool")
			h.cfg.Floor = 8 * drover.MiB
			h.start()
			t.Cleanup(func() { h.halt() })
			test(t, h)
		})
	}
}

const fillStep = 256 << 10

// fillUp writes to new blocks until the pool refuses, and returns where it did.
func fillUp(t *testing.T, c *nbd.Client, size int64) int64 {
	t.Helper()
	for off := int64(0); off < size; off += fillStep {
		if err := c.WriteAt(t.Context(), pattern(uint64(off), fillStep), off, false); err != nil {
			wantCode(t, err, drover.Exhausted)
			return off
		}
	}
	t.Fatal("the pool never refused")
	return 0
}

// A guest that takes all it can get leaves the floor, keeps what it has, and harms nobody.
func TestFloorIsLeftFree(t *testing.T) {
	onSmallDisks(t, func(t *testing.T, h *testHost) {
		ctx := t.Context()
		h.create("vol_a", 256*drover.MiB)
		h.create("vol_b", 256*drover.MiB)
		a, b := h.open("vol_a", 1), h.open("vol_b", 1)
		noErr(t, b.WriteAt(ctx, pattern(7, 2*mib), 0, true))
		end := fillUp(t, a, 256*mib)
		noErr(t, a.Flush(ctx))
		_, free, err := statfs(h.cfg.Dir)
		noErr(t, err)
		if free < 7*drover.MiB {
			t.Errorf("%d bytes are free, 8 MiB were to be left", free)
		}
		for range 3 { // what has space is written on, by both, and what needs some is refused to both
			noErr(t, a.WriteAt(ctx, pattern(1, mib), 0, true))
			noErr(t, b.WriteAt(ctx, pattern(7, 2*mib), 0, true))
			wantCode(t, a.WriteAt(ctx, pattern(1, fillStep), end+mib, false), drover.Exhausted)
			wantCode(t, b.WriteAt(ctx, pattern(1, fillStep), 3*mib, false), drover.Exhausted)
			wantCode(t, b.Zero(ctx, 3*mib, mib, true, false), drover.Exhausted)
		}
		h.create("vol_c", drover.GiB)
		same(t, a, 512<<10, pattern(1, mib)[512<<10:])
		same(t, b, 0, pattern(7, 2*mib))
		// A discard makes room, which anybody may use at once.
		noErr(t, a.Discard(ctx, 8*mib, 8*mib, true))
		noErr(t, a.Flush(ctx))
		noErr(t, b.WriteAt(ctx, pattern(8, mib), 4*mib, true))
		same(t, b, 4*mib, pattern(8, mib))
	})
}

// With not a byte left, whoever took it, layers are still closed, frozen, exported, fenced, limited and deleted; and then there is room.
func TestPoolWithoutAByteIsDrained(t *testing.T) {
	onSmallDisks(t, func(t *testing.T, h *testHost) {
		ctx := t.Context()
		for _, id := range []drover.LayerID{"vol_a", "vol_b"} {
			h.create(id, 64*drover.MiB)
		}
		a, b := h.open("vol_a", 1), h.open("vol_b", 1)
		noErr(t, a.WriteAt(ctx, pattern(1, 4*mib), 0, true))
		for off := int64(0); off < 12*mib; off += 4 * mib { // more than the floor
			noErr(t, b.WriteAt(ctx, pattern(2, 4*mib), off, true))
		}
		fillFile(t, filepath.Join(filepath.Dir(h.cfg.Dir), "somebody-else"))
		noErr(t, a.WriteAt(ctx, pattern(3, 4*mib), 0, true))
		wantCode(t, a.WriteAt(ctx, pattern(3, mib), 5*mib, false), drover.Exhausted)

		noErr(t, h.Limit(ctx, "vol_b", drover.Limits{IOPS: 1000}))
		h.export("vol_a", "h2") // freezes it, too
		noErr(t, h.Unexport(ctx, "vol_a", "h2"))
		noErr(t, h.Thaw(ctx, "vol_a"))
		noErr(t, h.Close(ctx, "vol_b"))
		noErr(t, h.Fence(ctx, "vol_b", 5))
		noErr(t, h.Fence(ctx, "vol_new", 5))
		h.halt()
		h.start()
		same(t, h.open("vol_a", 2), 0, pattern(3, 4*mib))
		noErr(t, h.Delete(ctx, "vol_b"))
		noErr(t, h.open("vol_a", 3).WriteAt(ctx, pattern(4, 64<<10), 5*mib, true))
	})
}

// fillFile takes every byte that the file system gives.
func fillFile(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	noErr(t, err)
	for _, size := range []int64{mib, blockSize, 512, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(bytes.Repeat([]byte{1}, int(size)))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	noErr(t, errors.Join(f.Sync(), f.Close()))
	if _, free, err := statfs(filepath.Dir(path)); err != nil || free > 0 {
		t.Fatal(fmt.Errorf("%d bytes are left: %w", free, err))
	}
}
