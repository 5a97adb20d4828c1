package volume

import (
	"errors"
	"testing"

	"drover"
)

// settledFile tells what of it was begun to be written and not waited for.
type settledFile struct {
	*simFile
	waiting, most int64
	err           error
}

func (f *settledFile) Writeback(_, n int64) {
	f.waiting += n
	f.most = max(f.most, f.waiting)
}

func (f *settledFile) Settle(_, n int64) error {
	f.waiting -= n
	return f.err
}

// What a copy stores is on its way to the disk while the copy goes on, and there is a bound to it.
func TestACopyWritesBehind(t *testing.T) {
	f := &settledFile{}
	b := behind{c: newContent("vol_a", 1<<40, f)}
	for i := range int64(3 * behindMost / mib) {
		noErr(t, b.wrote(t.Context(), i*mib, mib))
	}
	if f.waiting != behindMost || f.most != behindMost+mib {
		t.Fatalf("%d bytes are on their way, and %d were", f.waiting, f.most)
	}
	f.waiting = 0
	noErr(t, b.wrote(t.Context(), 0, behindMin-blockSize))
	if f.waiting != 0 {
		t.Fatal("a small run is written behind")
	}
}

// The kernel tells once of what it could not write. Whoever is told while a copy goes on must not lose it: what was acknowledged may be gone.
func TestALayerEndsWhenWhatWasWrittenBehindIsLost(t *testing.T) {
	f := &settledFile{err: errors.New("broken disk")}
	c := newContent("vol_a", 1<<40, f)
	b := behind{c: c}
	var err error
	for i := int64(0); err == nil && i <= behindMost/mib; i++ {
		err = b.wrote(t.Context(), i*mib, mib)
	}
	if !drover.Is(err, drover.Internal) || c.failure() == nil {
		t.Fatalf("the copy goes on with %v, the layer with %v", err, c.failure())
	}
	if err := c.Flush(t.Context()); err == nil {
		t.Fatal("a flush succeeds after data was lost")
	}
}
