package volume

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/time/rate"

	"drover"
)

// After a wipe nothing of the data is in the file that had it, and nothing is left in the pool.
func TestWipeOverwritesTheData(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	v := newVolumeUnder(t, h, "vol_a", 40*mib)
	v.write(1, 0, 20*mib)
	v.split("vol_a.s")
	v.write(2, 30*mib, 2*mib)
	noErr(t, h.Close(t.Context(), "vol_a"))
	var files []*os.File // these stay open when the names are gone
	for _, id := range []drover.LayerID{"vol_a", "vol_a.s"} {
		m := must[*meta](t)(readMeta(filepath.Join(h.cfg.Dir, "layers", string(id), metaFile), id))
		f := must[*os.File](t)(os.Open(filepath.Join(h.cfg.Dir, "layers", string(id), fileName(dataFile, m.Files))))
		defer f.Close()
		files = append(files, f)
	}
	noErr(t, h.Wipe(t.Context(), "vol_a"))
	noErr(t, h.Wipe(t.Context(), "vol_a.s"))
	if all := must[[]drover.LayerStatus](t)(h.Layers(t.Context())); len(all) != 0 {
		t.Errorf("left: %+v", all)
	}
	h.emptied()
	for _, f := range files {
		got := make([]byte, 40*mib)
		if _, err := f.ReadAt(got, 0); err != nil || !isZero(got) {
			t.Errorf("%s still has data, or cannot be read: %v", f.Name(), err)
		}
	}
	h.tidy()
}

// What was to be wiped is wiped after a restart, what was only deleted is removed at once.
func TestWipeGoesOnAfterARestart(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	h.halt()
	trash := filepath.Join(h.cfg.Dir, "trash", "vol_x.1"+wipeSuffix)
	noErr(t, os.MkdirAll(trash, 0o700))
	noErr(t, os.WriteFile(filepath.Join(trash, dataFile), pattern(1, 3*mib), 0o600))
	f := must[*os.File](t)(os.Open(filepath.Join(trash, dataFile)))
	defer f.Close()
	h.start()
	h.emptied()
	got := make([]byte, 3*mib)
	if _, err := f.ReadAt(got, 0); err != nil || !isZero(got) {
		t.Errorf("still has data, or cannot be read: %v", err)
	}
}

// A data file that another layer has by now is not touched under its old name.
func TestWipeSparesAFileWithAnotherName(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	noErr(t, os.WriteFile(one, pattern(1, mib), 0o600))
	noErr(t, os.Link(one, two))
	p := &pool{}
	noErr(t, p.wipeFile(t.Context(), one, rate.NewLimiter(rate.Inf, maxFetch*blockSize)))
	if got := must[[]byte](t)(os.ReadFile(two)); !bytes.Equal(got, pattern(1, mib)) {
		t.Error("the file was overwritten")
	}
}

// What is encrypted is gone with its key: it is not overwritten.
func TestEncryptedLayerIsRemovedAtOnce(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	h.halt()
	p := must[*pool](t)(openPool(must[Config](t)(h.cfg.withDefaults()), dialTLS(h.cfg.TLSDir, true)))
	defer func() { noErr(t, p.close()) }()
	must[*layer](t)(p.createLayer(t.Context(), drover.LayerSpec{ID: "vol_a", Disk: "vol_a", Size: drover.MiB}))
	l := must[*layer](t)(p.find("vol_a"))
	noErr(t, l.update(func(m *meta) { m.Spec.Cipher = &drover.Cipher{} }))
	noErr(t, p.deleteLayer(t.Context(), "vol_a", true))
	if entries := must[[]os.DirEntry](t)(os.ReadDir(filepath.Join(h.cfg.Dir, "trash"))); len(entries) != 0 {
		t.Error(errors.New("an encrypted layer waits to be wiped"))
	}
}
