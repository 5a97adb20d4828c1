package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"drover"
)

// summedFile is a data file with sums in a directory of the test.
func summedFile(t testing.TB, blocks int64, boot string) (osFile, string) {
	t.Helper()
	dir := t.TempDir()
	f := must[osFile](t)(createFile(filepath.Join(dir, dataFile), blocks*blockSize))
	path := filepath.Join(dir, "sums")
	f.sums = must[*sums](t)(openSums(path, blocks, "inc", boot))
	return f, path
}

func summedContent(f osFile, blocks int64) *content {
	c := newContent("lay", blocks*blockSize, f)
	c.disk, c.sums = "dsk", f.sums
	return c
}

// wrongSums compares all sums that are known with what the file holds.
func wrongSums(f file, s *sums, blocks int64, present func(int64) bool) (known int, err error) {
	p := make([]byte, blockSize)
	for b := range blocks {
		want := s.get(b)
		if want == unknownSum || !present(b) {
			continue
		}
		known++
		if err := f.ReadAt(p, b*blockSize); err != nil {
			return known, err
		}
		if got := sumOf(p); got != want {
			return known, fmt.Errorf("block %d has the checksum %08x, kept is %08x", b, got, want)
		}
	}
	return known, nil
}

func everywhere(int64) bool { return true }

// Whatever is written at the same time, and read by another host meanwhile, no read is a false alarm and no sum is wrong at the end.
func TestSumsAreRightUnderConcurrentWrites(t *testing.T) {
	const blocks = 64
	f, _ := summedFile(t, blocks, "boot")
	c := summedContent(f, blocks)
	ctx := t.Context()
	var wg sync.WaitGroup
	for g := range uint64(6) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(g, 3))
			for range 400 {
				off := r.Int64N(blocks*8-64) * sectorSize
				n := (1 + r.Int64N(64)) * sectorSize
				if r.IntN(2) == 0 {
					off, n = off/blockSize*blockSize, (n+blockSize-1)/blockSize*blockSize
				}
				var err error
				switch r.IntN(8) {
				case 0:
					err = c.Discard(ctx, off, n, false)
				case 1:
					err = c.Zero(ctx, off, n, true, false)
				case 2, 3:
					err = c.ReadForOthers(ctx, make([]byte, n), off)
				case 4:
					err = c.check(make([]byte, blockSize), off/blockSize) // a read that was overtaken
				default:
					err = c.WriteAt(ctx, pattern(r.Uint64(), n), off, false)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	known, err := wrongSums(f, c.sums, blocks, everywhere)
	if err != nil || known == 0 || len(c.damagedRanges()) != 0 {
		t.Errorf("%d sums are known: %v; damaged: %v", known, err, c.damagedRanges())
	}
}

// Whoever reads: the guest, another host, over whichever path and in whichever pieces.
func TestFlippedByteIsNotPassedOn(t *testing.T) {
	f, _ := summedFile(t, 8, "boot")
	c := summedContent(f, 8)
	ctx := t.Context()
	data := pattern(1, 8*blockSize)
	noErr(t, c.WriteAt(ctx, data, 0, false))
	noErr(t, f.writeAt([]byte{data[5*blockSize+77] ^ 4}, 5*blockSize+77)) // behind the engine's back
	readers := map[string]func(p []byte, off int64) error{
		"the guest":    func(p []byte, off int64) error { return c.ReadAt(ctx, p, off) },
		"another host": func(p []byte, off int64) error { return c.ReadForOthers(ctx, p, off) },
		"in pieces":    func(p []byte, off int64) error { return c.ReadVec(ctx, inPieces(p), off) },
	}
	for who, read := range readers {
		for _, r := range [][2]int64{{0, 8 * blockSize}, {5*blockSize + 100, 10}, {4*blockSize + 100, 2 * blockSize}, {5*blockSize - 10, 20}, {6*blockSize - 10, 20}} {
			err := read(make([]byte, r[1]), r[0])
			wantCode(t, err, drover.Internal)
			for _, word := range []string{"disk dsk", "layer lay", "offset 20480"} {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%s: the error does not name the %s: %v", who, word, err)
				}
			}
			if c.tryReadAt(make([]byte, r[1]), r[0]) || c.tryReadVec(inPieces(make([]byte, r[1])), r[0]) {
				t.Errorf("a read of %d bytes at %d that does not wait gets the damaged block", r[1], r[0])
			}
		}
		for _, r := range [][2]int64{{0, 5 * blockSize}, {6 * blockSize, 2 * blockSize}, {4*blockSize + 7, 100}, {6*blockSize + 1, blockSize + 5}} {
			got := make([]byte, r[1])
			if err := read(got, r[0]); err != nil || !bytes.Equal(got, data[r[0]:r[0]+r[1]]) {
				t.Errorf("%s cannot read %d sound bytes at %d: %v", who, r[1], r[0], err)
			}
		}
	}
	if got := c.damagedRanges(); len(got) != 1 || got[0] != (drover.ByteRange{Offset: 5 * blockSize, Length: blockSize}) {
		t.Errorf("damaged: %v", got)
	}
	noErr(t, c.WriteAt(ctx, pattern(2, blockSize), 5*blockSize, false))
	noErr(t, c.ReadAt(ctx, make([]byte, 8*blockSize), 0))
	if got := c.damagedRanges(); len(got) != 0 {
		t.Errorf("damaged after the block was written again: %v", got)
	}
}

// inPieces cuts a buffer as no guest would.
func inPieces(p []byte) (iov [][]byte) {
	for n := 1; len(p) > 0; n = n*3 + 1 {
		n = min(n, len(p))
		iov, p = append(iov, p[:n]), p[n:]
	}
	return iov
}

// Sealed sums count for ever; those of a file that was being written only in the same boot.
func TestSumsCountAsLongAsTheyAreTrue(t *testing.T) {
	f, path := summedFile(t, 8, "one")
	noErr(t, f.WriteAt(pattern(1, 2*blockSize), 0))
	noErr(t, f.sums.seal())
	noErr(t, f.sums.close())
	reopen := func(boot, incarnation string) *sums { return must[*sums](t)(openSums(path, 8, incarnation, boot)) }
	f.sums = reopen("two", "inc")
	if f.sums.get(1) == unknownSum {
		t.Error("a sealed sum was forgotten")
	}
	noErr(t, f.WriteAt(pattern(2, blockSize), 0))
	noErr(t, f.sums.close())
	f.sums = reopen("two", "inc") // as after a kill
	if f.sums.get(0) == unknownSum || f.sums.get(1) == unknownSum {
		t.Error("sums did not outlive the process")
	}
	noErr(t, f.sums.close())
	f.sums = reopen("three", "inc")
	if f.sums.get(0) != unknownSum || f.sums.get(1) != unknownSum {
		t.Error("sums of an open file outlived the host")
	}
	noErr(t, f.WriteAt(pattern(2, blockSize), 0))
	noErr(t, f.sums.seal())
	noErr(t, f.sums.close())
	if f.sums = reopen("three", "other"); f.sums.get(0) != unknownSum {
		t.Error("the sums of another content count")
	}
	noErr(t, f.sums.close())
}

func TestNoRoomForSumsIsNoReasonToFailAWrite(t *testing.T) {
	store := &simSums{disk: &simDisk{left: -1}, mem: make([]uint32, 8), full: true}
	f := summedSim{simFile: store.disk.newFile(8 * blockSize), s: newSums(store, 8, "inc", "boot", false)}
	noErr(t, f.WriteAt(pattern(1, blockSize), 0))
	if f.s.get(0) != unknownSum {
		t.Error("a sum was stored where there is no room")
	}
	store.full = false
	f.s.noRoom.Store(0)
	noErr(t, f.WriteAt(pattern(1, blockSize), 0))
	if f.s.get(0) == unknownSum {
		t.Error("no sum was stored although there is room again")
	}
}

// A page of the file that cannot be had ends the use of sums, and nothing else.
func TestFaultInTheSumsFileEndsTheirUse(t *testing.T) {
	f, path := summedFile(t, 64, "boot")
	noErr(t, f.WriteAt(pattern(1, blockSize), 0))
	noErr(t, os.Truncate(path, 0))
	noErr(t, f.WriteAt(pattern(2, blockSize), 0))
	if f.sums.get(0) != unknownSum || !f.sums.gone.Load() {
		t.Error("the sums are still in use")
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

// simSums is a store of sums on the simulated disk.
type simSums struct {
	disk    *simDisk
	mem     []uint32
	stored  []uint32    // what is durable
	heads   []mapHeader // what the header may be after a power cut; the last is what programs see
	full    bool
	removed bool
}

var _ sumStore = (*simSums)(nil)

func (s *simSums) words() []uint32 { return s.mem }

func (s *simSums) step() error {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return s.disk.step()
}

func (s *simSums) reserve(int64, int64) error {
	if s.full {
		return errors.New("no space")
	}
	return s.step()
}

func (s *simSums) writeHead(h mapHeader) error {
	if err := s.step(); err != nil {
		return err
	}
	s.stored = cloneWords(s.mem)
	if err := s.step(); err != nil {
		return err
	}
	s.heads = append(s.heads, h)
	if err := s.step(); err != nil {
		return err
	}
	s.heads = s.heads[len(s.heads)-1:]
	return nil
}

func cloneWords(w []uint32) []uint32 { return append([]uint32(nil), w...) }

func (s *simSums) remove() error {
	if err := s.step(); err != nil {
		return err
	}
	s.removed = true
	return nil
}

func (s *simSums) close() error { return nil }

// powerOn leaves of each word what was stored, what it was meanwhile, or what it was last.
func (s *simSums) powerOn(r *rand.Rand) {
	for i := range s.mem {
		old := uint32(0)
		if s.stored != nil {
			old = s.stored[i]
		}
		s.mem[i] = []uint32{old, unknownSum, s.mem[i]}[r.IntN(3)]
	}
	if n := len(s.heads); n > 0 {
		s.heads = []mapHeader{s.heads[r.IntN(n)]}
	}
	s.stored = cloneWords(s.mem)
}

// open does what openSums does.
func (s *simSums) open(boot string) *sums {
	blocks := int64(len(s.mem))
	usable, opened := false, false
	if len(s.heads) > 0 && !s.removed {
		usable, opened = sumsCount(s.heads[len(s.heads)-1].encode(sumsMagic), mapHeader{blocks: blocks, incarnation: simIncarnation, boot: boot})
	}
	if !usable {
		*s = simSums{disk: s.disk, mem: make([]uint32, blocks)}
	}
	return newSums(s, blocks, simIncarnation, boot, opened)
}

// summedSim is a simulated file with sums.
type summedSim struct {
	*simFile
	s *sums
}

func (f summedSim) WriteAt(p []byte, off int64) error {
	return f.s.write(p, off, func() error { return f.simFile.WriteAt(p, off) })
}

func (f summedSim) Fill(p []byte, off int64) error {
	return f.s.fill(p, off, func() error { return f.simFile.WriteAt(p, off) })
}

func (f summedSim) PunchHole(off, n int64) error {
	return f.s.change(off, n, func() error { return f.simFile.PunchHole(off, n) })
}

func (f summedSim) ZeroRange(off, n int64) error { return f.PunchHole(off, n) }

// summedWorld is a layer of the crash tests with sums.
type summedWorld struct {
	*simWorld
	store *simSums
}

func (w *summedWorld) open(live *bitmap, boot string) error {
	s := w.store.open(boot)
	if err := w.openOn(live, summedSim{simFile: w.data, s: s}); err != nil {
		return err
	}
	w.content.sums = s
	return nil
}

// alarms looks for sums that are not those of what present blocks hold.
func (w *summedWorld) alarms() (int, error) {
	return wrongSums(w.data, w.content.sums, simBlocks, w.over.Load().present.get)
}

// crashWithSums runs a workload until the disk's k-th operation, crashes, goes on, and looks for false alarms all the time.
func crashWithSums(t *testing.T, seed uint64, k int, host bool) (reached bool, known int) {
	r := rand.New(rand.NewPCG(seed, 11))
	world := newSimWorld(r, seed%2 == 0)
	w := &summedWorld{simWorld: world, store: &simSums{disk: world.disk, mem: make([]uint32, simBlocks)}}
	noErr(t, w.open(nil, "one"))
	w.disk.left = k
	work := func(steps int) {
		for i := 0; i < steps && !w.disk.out; i++ {
			var err error
			if r.IntN(6) == 0 {
				err = w.seal(t.Context())
			} else {
				err = w.act(r)
			}
			if err != nil && !w.disk.out {
				t.Fatalf("seed %d, crash at %d: %v", seed, k, err)
			}
			if i == steps/2 {
				w.over.Load().src.Store(nil) // as after a hydration: sums are sealed from now on
			}
		}
	}
	if seed%3 == 0 {
		if err := w.hydrate(t.Context(), newLimit(0), func() error { return nil }); err != nil && !w.disk.out {
			t.Fatalf("seed %d, crash at %d: %v", seed, k, err)
		}
	}
	work(24)
	if !w.disk.out {
		return false, 0
	}
	live, boot := w.live, "one"
	if host {
		p := rand.New(rand.NewPCG(seed, uint64(k)))
		w.disk.powerOn(p)
		w.store.powerOn(p)
		live, boot = nil, "two"
	} else {
		w.disk.restart()
	}
	noErr(t, w.open(live, boot))
	known, err := w.alarms()
	if err != nil {
		t.Fatalf("seed %d, crash at %d: false alarm after the crash: %v", seed, k, err)
	}
	work(12)
	noErr(t, w.seal(t.Context()))
	if _, err := w.alarms(); err != nil {
		t.Fatalf("seed %d, crash at %d: false alarm later: %v", seed, k, err)
	}
	return true, known
}

// Neither a kill nor a power cut at any operation of the disk makes a sum wrong; a kill does not make all of them unknown.
func TestCrashesMakeNoFalseAlarms(t *testing.T) {
	for _, host := range []bool{false, true} {
		total := 0
		for seed := range uint64(8) {
			for k := 0; ; k++ {
				reached, known := crashWithSums(t, seed, k, host)
				if !reached {
					break
				}
				total += known
			}
		}
		if total == 0 {
			t.Errorf("no sum survived a crash (host %v)", host)
		}
	}
}

// A kill with SIGKILL under load, on real files.
func TestKilledDaemonKeepsItsSums(t *testing.T) {
	p := newProcessHost(t, prepareHost(t, newCA(t), "h1"))
	p.start()
	p.create("vol_a", 4*drover.MiB)
	c := p.open("vol_a", 1)
	stopped := make(chan struct{})
	for g := range uint64(3) {
		go func() {
			r := rand.New(rand.NewPCG(g, 9))
			for c.Err() == nil {
				n := (1 + r.Int64N(16)) * sectorSize * 4
				_ = c.WriteAt(context.Background(), pattern(r.Uint64(), n), r.Int64N(4*mib-n)/sectorSize*sectorSize, false) // ends with the kill
			}
			stopped <- struct{}{}
		}()
	}
	for i := range int64(40) {
		noErr(t, c.WriteAt(t.Context(), pattern(uint64(i), mib/16), i*mib/16%(4*mib), false))
	}
	p.kill()
	for range 3 {
		<-stopped
	}
	m := must[*meta](t)(readMeta(filepath.Join(p.cfg.Dir, "layers", "vol_a", metaFile), "vol_a"))
	boot := must[string](t)(bootID())
	f := must[osFile](t)(openFile(filepath.Join(p.cfg.Dir, "layers", "vol_a", dataFile), 4*mib, false))
	s := must[*sums](t)(openSums(filepath.Join(p.cfg.Dir, "layers", "vol_a", fileName(sumsName, m.Files)), mib/1024, m.Incarnation, boot))
	known, err := wrongSums(f, s, mib/1024, everywhere)
	if err != nil || known < 100 {
		t.Errorf("%d sums are known after the kill: %v", known, err)
	}
	noErr(t, errors.Join(f.Close(), s.close()))
}

func FuzzSumsHeader(f *testing.F) {
	want := mapHeader{blocks: 8, incarnation: "inc", boot: "boot"}
	f.Add(want.encode(sumsMagic))
	f.Add(mapHeader{blocks: 8, incarnation: "inc"}.encode(sumsMagic))
	f.Add(mapHeader{blocks: 9, incarnation: "inc"}.encode(sumsMagic))
	f.Add([]byte(sumsMagic))
	f.Fuzz(func(t *testing.T, head []byte) {
		usable, opened := sumsCount(head, want)
		if !usable {
			return
		}
		h, err := decodeMapHeader(head, sumsMagic)
		if err != nil || h.incarnation != want.incarnation || h.blocks > want.blocks || opened != (h.boot == want.boot) || !opened && h.boot != "" {
			t.Errorf("a header that does not fit counts: %+v %v", h, err)
		}
		if !bytes.Equal(h.encode(sumsMagic)[:100], head[:100]) {
			t.Errorf("the header %x is that of %+v", head[:100], h)
		}
	})
}

// What sums cost a write of 4 KiB, without the write.
func BenchmarkSumsOfOneWrite(b *testing.B) {
	const blocks = 64 << 10
	f, _ := summedFile(b, blocks, "boot")
	p := pattern(1, blockSize)
	r := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		noErr(b, f.sums.write(p, r.Int64N(blocks)*blockSize, func() error { return nil }))
	}
}

// A write of 4 KiB to the page cache without and with sums.
func BenchmarkWriteWithSums(b *testing.B) {
	withAndWithoutSums(b, func(c *content, p []byte, off int64) error { return c.WriteAt(b.Context(), p, off, false) })
}

// What a look at the sums adds to a read from the page cache.
func BenchmarkReadWithSums(b *testing.B) {
	withAndWithoutSums(b, func(c *content, p []byte, off int64) error { return c.ReadAt(b.Context(), p, off) })
}

func withAndWithoutSums(b *testing.B, do func(c *content, p []byte, off int64) error) {
	for _, with := range []bool{false, true} {
		for _, size := range []int64{blockSize, mib} {
			b.Run(fmt.Sprintf("sums=%v/%d", with, size), func(b *testing.B) {
				const blocks = 64 << 10
				f, _ := summedFile(b, blocks, "boot")
				if !with {
					f.sums = nil
				}
				c := summedContent(f, blocks)
				p := pattern(1, size)
				r := rand.New(rand.NewPCG(1, 1))
				for off := int64(0); off < blocks*blockSize; off += size {
					noErr(b, c.WriteAt(b.Context(), p, off, false))
				}
				b.SetBytes(size)
				for b.Loop() {
					noErr(b, do(c, p, r.Int64N(blocks*blockSize/size)*size))
				}
			})
		}
	}
}
