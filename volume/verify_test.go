package volume

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/nbd"
	"drover/vhostuser/vhosttest"
)

// flip changes a byte of a layer's data file behind the daemon's back.
func (h *testHost) flip(id drover.LayerID, off int64) {
	h.tb.Helper()
	f := must[*os.File](h.tb)(os.OpenFile(filepath.Join(h.cfg.Dir, "layers", string(id), dataFile), os.O_RDWR, 0))
	defer f.Close()
	b := make([]byte, 1)
	must[int](h.tb)(f.ReadAt(b, off))
	b[0] ^= 0x10
	must[int](h.tb)(f.WriteAt(b, off))
}

func (h *testHost) layer(id drover.LayerID) drover.LayerStatus {
	h.tb.Helper()
	return must[drover.LayerStatus](h.tb)(h.Layer(h.tb.Context(), id))
}

// verified waits until the newest comparison of a layer has ended.
func (h *testHost) verified(id drover.LayerID) (v *drover.Verification) {
	h.tb.Helper()
	eventually(h.tb, func() error {
		if v = h.layer(id).Verification; v == nil || !v.Done {
			return fmt.Errorf("not verified: %+v", v)
		}
		return nil
	})
	return v
}

// A damaged block of the source is reported with disk, layer and offset on both sides, fails the reads of it, and holds up nothing else.
func TestDamagedSourceBlockIsReportedAndNotPassedOn(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	ctx := t.Context()
	noErr(t, h2.Settings(ctx, drover.StorageSettings{StallAfter: drover.Duration(20 * time.Millisecond)}))
	data := cloneWithData(t, h1, h2, 4*mib)
	const bad = 2<<20 + 5*blockSize
	h1.flip("vol_a", bad+7)
	c := h2.open("vol_a.m", 2)
	noErr(t, h2.Hydrate(ctx, "vol_a.m", 0))
	eventually(t, func() error {
		s := h2.hydration("vol_a.m")
		if s.Done {
			t.Fatal("the hydration is done without the damaged block")
		}
		for _, word := range []string{"parent vol_a at host h1", "disk vol_a", "layer vol_a", fmt.Sprint("offset ", bad)} {
			if !strings.Contains(s.Waiting, word) {
				return fmt.Errorf("the status does not say %q: %+v", word, s)
			}
		}
		if s.Copied != 4*drover.MiB-blockSize || !s.Stalled {
			return fmt.Errorf("not all else was copied: %+v", s)
		}
		return nil
	})
	if err := c.ReadAt(ctx, make([]byte, blockSize), bad); !drover.Is(err, drover.Internal) || !strings.Contains(err.Error(), fmt.Sprint("offset ", bad)) {
		t.Errorf("the guest's read got %v", err)
	}
	want := drover.ByteRange{Offset: bad, Length: blockSize}
	if v := h1.layer("vol_a").Verification; v == nil || len(v.Damaged) != 1 || v.Damaged[0] != want {
		t.Errorf("the source reports %+v", v)
	}
	noErr(t, c.WriteAt(ctx, pattern(5, blockSize), bad, false)) // whoever writes it again mends it
	copy(data[bad:], pattern(5, blockSize))
	s := h2.hydrated("vol_a.m")
	if v := h2.verified("vol_a.m"); v.Against != againstParent || v.Checked != 4*drover.MiB || len(v.Damaged) != 0 {
		t.Errorf("verification: %+v", v)
	}
	got := make([]byte, len(data))
	noErr(t, c.ReadAt(ctx, got, 0))
	if s.Hydration.Stalled || s.Hydration.Waiting != "" || !bytes.Equal(got, data) {
		t.Errorf("afterwards: %+v", s.Hydration)
	}
}

// A guest gets an I/O error in place of what its disk does not give back, over both kinds of disk, encrypted or not, and all else.
func TestGuestIsNotGivenADamagedBlock(t *testing.T) {
	const bad = 300 * blockSize
	for name, cipher := range map[string]*drover.Cipher{"plain": nil, "encrypted": drover.NewCipher()} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, newCA(t), "h1")
			h.cipher = cipher
			h.create("vol_a", 2*drover.MiB)
			c := h.open("vol_a", 1)
			data := pattern(1, 2*mib)
			noErr(t, c.WriteAt(t.Context(), data, 0, true))
			h.flip("vol_a", bad+77)
			got := make([]byte, bad)
			if noErr(t, c.ReadAt(t.Context(), got, 0)); !bytes.Equal(got, data[:bad]) {
				t.Error("sound blocks are read wrongly")
			}
			for _, n := range []int64{512, blockSize, 64 << 10} {
				if err := c.ReadAt(t.Context(), make([]byte, n), bad); err == nil {
					t.Errorf("%d bytes with the damaged block are given over NBD", n)
				}
			}
			noErr(t, c.Close())
			f := h.vhost(must[drover.Attachment](t)(h.Open(t.Context(), "vol_a", 1)))
			for _, n := range []int{512, blockSize, 16 << 10} {
				if _, status := f.Read(bad, n); status != vhosttest.IOErr {
					t.Errorf("%d bytes with the damaged block end with status %d over vhost-user-blk", n, status)
				}
				guestReads(t, f, bad-int64(n), data[bad-n:bad])
			}
			// A write of a part of it must not make the rest of it count as good.
			for _, part := range []struct{ off, n int64 }{{bad, 512}, {bad + 512, 512}, {bad - blockSize, blockSize + 512}, {bad + 3584, blockSize}} {
				if status := f.Write(part.off, data[part.off:part.off+part.n]); status != vhosttest.IOErr {
					t.Errorf("a write of %d bytes at %d, a part of the damaged block, ends with status %d", part.n, part.off, status)
				}
			}
			if _, status := f.Read(bad, blockSize); status != vhosttest.IOErr {
				t.Errorf("then the damaged block is read with status %d", status)
			}
			guestWrites(t, f, bad-512, data[bad-512:bad]) // a part of a sound one
			guestReads(t, f, bad-blockSize, data[bad-blockSize:bad])
			want := drover.ByteRange{Offset: bad, Length: blockSize}
			if v := h.layer("vol_a").Verification; v == nil || len(v.Damaged) != 1 || v.Damaged[0] != want {
				t.Errorf("reported is %+v", v)
			}
			guestWrites(t, f, bad, data[bad:bad+blockSize])
			guestReads(t, f, bad, data[bad:bad+blockSize])
		})
	}
}

// overFile is a layer with a real data file and sums over a parent in memory.
func overFile(t *testing.T, blocks int64) (s *simLayer, f osFile, p *pace) {
	t.Helper()
	var all []int64
	for b := range blocks {
		all = append(all, b)
	}
	s = simOver(t, blocks, all...)
	f, _ = summedFile(t, blocks, "boot")
	noErr(t, s.openOn(nil, f))
	s.content.sums, s.content.disk = f.sums, "dsk"
	s.over.Load().fetched = newBitmap(blocks)
	p = newLimit(0)
	p.verification = newVerification(againstParent)
	return s, f, p
}

func noCheckpoint() error { return nil }

// What was stored with another checksum than the parent's is fetched again before the hydration is done.
func TestBlockThatWasStoredWronglyIsFetchedAgain(t *testing.T) {
	s, f, p := overFile(t, 600)
	s.parent.beforeSums = func() {
		s.parent.beforeSums = nil
		noErr(t, f.WriteAt([]byte{1, 2, 3}, 300*blockSize+9)) // sum unknown: the block is read
		noErr(t, f.WriteAt(pattern(1, blockSize), 301*blockSize))
	}
	noErr(t, s.hydrate(t.Context(), p, noCheckpoint))
	v := p.verification.status()
	if v.Repaired != 2*blockSize || v.Checked != 600*blockSize || len(v.Damaged) != 0 || v.Total != 600*blockSize {
		t.Errorf("%+v", v)
	}
	got := make([]byte, 600*blockSize)
	noErr(t, s.ReadForOthers(t.Context(), got, 0))
	if !bytes.Equal(got, s.parent.data) {
		t.Error("the blocks were not repaired")
	}
}

// What the target's disk lost of what was fetched is found when it is read back, and fetched again as long as there is where from.
func TestBlockThatTheDiskLostIsFetchedAgain(t *testing.T) {
	s, f, p := overFile(t, 600)
	noErr(t, s.hydrate(t.Context(), p, noCheckpoint))
	free := func(context.Context, int64) error { return nil }
	for _, there := range []bool{true, false} {
		for _, b := range []int64{3, 4, 300} {
			noErr(t, f.writeAt([]byte{1, 2, 3}, b*blockSize+9))
		}
		v, kept := newVerification(againstParent), keptSums{c: s.content}
		kept.again = func(ctx context.Context, p []byte, off int64) error {
			if !there {
				return drover.Errorf(drover.Unavailable, "the parent is gone")
			}
			return s.parent.read(ctx, hydrationClass, p, off)
		}
		noErr(t, s.compare(t.Context(), kept, v, free))
		now := v.status()
		if there && (now.Repaired != 3*blockSize || len(now.Damaged) != 0) || !there && (now.Repaired != 0 || len(now.Damaged) != 2) {
			t.Errorf("parent there: %v: %+v", there, now)
		}
		if there != (s.ReadForOthers(t.Context(), make([]byte, 600*blockSize), 0) == nil) {
			t.Errorf("parent there: %v: the layer is not as it should be", there)
		}
	}
	if got := s.damagedRanges(); len(got) != 2 {
		t.Errorf("damaged: %v", got)
	}
}

// What the guest writes while the comparison runs is neither a difference nor overwritten by a repair.
func TestGuestWritesDuringVerificationWin(t *testing.T) {
	s, _, p := overFile(t, 600)
	mine := pattern(77, 2*blockSize)
	s.parent.beforeSums = func() {
		s.parent.beforeSums = nil
		noErr(t, s.WriteAt(context.Background(), mine, 5*blockSize, false))
		noErr(t, s.WriteAt(context.Background(), mine[:100], 400*blockSize+50, false))
		done, err := s.tryWriteAt(mine[:blockSize], 401*blockSize)
		if !done || err != nil {
			t.Errorf("the fast write: %v, %v", done, err)
		}
		noErr(t, s.Discard(context.Background(), 402*blockSize, blockSize, false))
	}
	noErr(t, s.hydrate(t.Context(), p, noCheckpoint))
	v := p.verification.status()
	if v.Repaired != 0 || v.Unknown != 5*blockSize || v.Checked != 595*blockSize {
		t.Errorf("%+v", v)
	}
	got := make([]byte, 2*blockSize)
	noErr(t, s.ReadAt(t.Context(), got, 5*blockSize))
	if !bytes.Equal(got, mine) {
		t.Error("the guest's write is gone")
	}
}

// A difference that stays ends no hydration: the parent is still needed.
func TestDifferenceThatStaysKeepsTheParent(t *testing.T) {
	s, _, p := overFile(t, 20)
	s.parent.lies = true
	err := s.hydrate(t.Context(), p, noCheckpoint)
	wantCode(t, err, drover.Internal)
	for _, word := range []string{"disk dsk", "offset 0", "parent is kept"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
	if d := p.verification.status().Damaged; len(d) != 1 || d[0].Length != 20*blockSize {
		t.Errorf("damaged: %v", d)
	}
	s.parent.lies = false
	noErr(t, s.hydrate(t.Context(), p, noCheckpoint))
}

func TestVerifyFindsAFlippedByteAnywhere(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	h.create("vol_a", 64*drover.MiB)
	c := h.open("vol_a", 1)
	noErr(t, c.WriteAt(ctx, pattern(1, 4*mib), 8*mib, false))
	noErr(t, c.WriteAt(ctx, pattern(1, 1000), 40*mib, false)) // a part of a block: its sum is not known
	verify := func() *drover.Verification {
		must[drover.LayerStatus](t)(h.Verify(ctx, "vol_a", nil))
		return h.verified("vol_a")
	}
	if v := verify(); v.Checked != 4*drover.MiB || v.Unknown != blockSize || len(v.Damaged) != 0 || v.Against != againstChecksums {
		t.Errorf("%+v", v)
	}
	noErr(t, h.Close(ctx, "vol_a"))
	h.flip("vol_a", 9*mib+3)
	h.halt()
	h.start() // sums are sealed and count on
	if v := verify(); len(v.Damaged) != 1 || v.Damaged[0] != (drover.ByteRange{Offset: 9 * drover.MiB, Length: blockSize}) {
		t.Errorf("%+v", v)
	}
	h.halt()
	h.start()
	if v := h.layer("vol_a").Verification; v == nil || len(v.Damaged) != 1 {
		t.Errorf("the record of the damage is gone: %+v", v)
	}
	_, err := h.Verify(ctx, "vol_a", &drover.SnapshotSource{Snapshot: "vs_1"})
	wantCode(t, err, drover.Precondition)
}

// A comparison that was cut short by the end of the daemon begins anew with the next.
func TestVerificationGoesOnAfterARestart(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	h.create("vol_a", 4*drover.MiB)
	noErr(t, h.open("vol_a", 1).WriteAt(t.Context(), pattern(1, mib), 0, false))
	h.halt()
	path := filepath.Join(h.cfg.Dir, "layers", "vol_a", metaFile)
	m := must[*meta](t)(readMeta(path, "vol_a"))
	m.Verification = newVerification(againstChecksums).status()
	noErr(t, writeMeta(path, m))
	h.start()
	if v := h.verified("vol_a"); v.Checked != drover.MiB || v.Problem != "" {
		t.Errorf("%+v", v)
	}
}

// What the context of checksums says over the wire is what is there, with holes and parts of blocks at the ends.
func TestChecksumsOverTheWire(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	h.create("vol_a", 64*drover.MiB)
	c := h.open("vol_a", 1)
	data := pattern(3, 3*blockSize)
	noErr(t, c.WriteAt(ctx, data, 2*blockSize, false))
	noErr(t, c.WriteAt(ctx, data[:10], 9*blockSize+1, false))
	s := must[*nbd.Client](t)(nbd.Dial(ctx, nbd.ClientConfig{Network: "unix", Address: filepath.Join(h.cfg.RunDir, nbdSocket), Export: "vol_a",
		MetaContexts: []string{nbd.ContextSum}}))
	defer s.Close()
	part := make([]byte, blockSize)
	copy(part[1:], data[:10])
	want := []nbd.Extent{{Length: 512}, {Length: blockSize, Flags: sumOf(data)}, {Length: blockSize, Flags: sumOf(data[blockSize:][:blockSize])},
		{Length: blockSize, Flags: sumOf(data[2*blockSize:])}, {Length: 4 * blockSize}, {Length: 512, Flags: sumOf(part)}}
	want[1].Flags = sumOf(data[:blockSize])
	got := must[[]nbd.Extent](t)(s.Extents(ctx, nbd.ContextSum, 2*blockSize-512, 7*blockSize+1024))
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// Sums that are not known are found out in the background, also after a power cut has made all of them unknown.
func TestUnknownSumsAreLearnt(t *testing.T) {
	f, path := summedFile(t, 64, "one")
	noErr(t, f.WriteAt(pattern(1, 20*blockSize+100), 10*blockSize))
	noErr(t, f.sums.close())
	f.sums = must[*sums](t)(openSums(path, 64, "inc", "two"))
	c := summedContent(f, 64)
	noErr(t, c.learnSums(t.Context(), newBucket(0)))
	if known, err := wrongSums(f, c.sums, 64, everywhere); known != 21 || err != nil {
		t.Errorf("%d sums are known: %v", known, err)
	}
	noErr(t, c.seal(t.Context()))
	noErr(t, f.sums.close())
	if s := must[*sums](t)(openSums(path, 64, "inc", "three")); s.get(12) == unknownSum {
		t.Error("what was learnt does not count after another boot")
	}
}
