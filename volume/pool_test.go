package volume

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover"
)

func TestCreateIsRepeatable(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	spec := drover.LayerSpec{ID: "vol_a", Disk: "vol_a", Size: 4 * drover.MiB,
		Parent: &drover.Export{Disk: "vol_a", Layer: "vol_a", Size: 4 * drover.MiB, Host: "h9", Address: "127.0.0.1:1", Name: "vol_a"}}
	must[drover.LayerStatus](t)(h.CreateLayer(ctx, spec))
	moved := spec
	e := *spec.Parent
	e.Address, e.Allocated = "127.0.0.1:2", 77
	moved.Parent = &e
	must[drover.LayerStatus](t)(h.CreateLayer(ctx, moved))
	if err := h.CheckParent(ctx, "vol_a"); !drover.Is(err, drover.Unavailable) || !strings.Contains(err.Error(), "127.0.0.1:2") {
		t.Errorf("the parent's new address does not count: %v", err)
	}
	other := spec
	other.Size *= 2
	e.Size *= 2
	other.Parent = &e
	_, err := h.CreateLayer(ctx, other)
	wantCode(t, err, drover.Exists)
}

func TestBadSpecsAreRefusedAndLeaveNothing(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	parent := func(change func(*drover.Export)) *drover.Export {
		e := &drover.Export{Layer: "p", Size: drover.MiB, Host: "h2", Address: "127.0.0.1:1", Name: "p"}
		change(e)
		return e
	}
	cases := map[string]struct {
		spec drover.LayerSpec
		code drover.Code
	}{
		"no ID":           {drover.LayerSpec{Disk: "d", Size: drover.MiB}, drover.Invalid},
		"path in ID":      {drover.LayerSpec{ID: "../x", Disk: "d", Size: drover.MiB}, drover.Invalid},
		"at in ID":        {drover.LayerSpec{ID: "x@1", Disk: "d", Size: drover.MiB}, drover.Invalid},
		"no disk":         {drover.LayerSpec{ID: "x", Size: drover.MiB}, drover.Invalid},
		"no size":         {drover.LayerSpec{ID: "x", Disk: "d"}, drover.Invalid},
		"odd size":        {drover.LayerSpec{ID: "x", Disk: "d", Size: 4097}, drover.Invalid},
		"huge":            {drover.LayerSpec{ID: "x", Disk: "d", Size: 1 << 50}, drover.Invalid},
		"unknown base":    {drover.LayerSpec{ID: "x", Disk: "d", Size: drover.MiB, Base: "nothing"}, drover.NotFound},
		"other size":      {drover.LayerSpec{ID: "x", Disk: "d", Size: drover.MiB, Parent: parent(func(e *drover.Export) { e.Size *= 2 })}, drover.Invalid},
		"no address":      {drover.LayerSpec{ID: "x", Disk: "d", Size: drover.MiB, Parent: parent(func(e *drover.Export) { e.Address = "" })}, drover.Invalid},
		"no room for all": {drover.LayerSpec{ID: "x", Disk: "d", Size: drover.MiB, Parent: parent(func(e *drover.Export) { e.Allocated = 1 << 60 })}, drover.Exhausted},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := h.CreateLayer(t.Context(), c.spec)
			wantCode(t, err, c.code)
		})
	}
	for _, dir := range []string{"layers", "new", "trash"} {
		if entries := must[[]os.DirEntry](t)(os.ReadDir(filepath.Join(h.cfg.Dir, dir))); len(entries) != 0 {
			t.Errorf("%s holds %v", dir, entries)
		}
	}
}

func TestUnknownLayerIsNotFound(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"open":    func() error { _, err := h.Open(ctx, "x", 1); return err },
		"close":   func() error { return h.Close(ctx, "x") },
		"freeze":  func() error { _, err := h.Freeze(ctx, "x"); return err },
		"thaw":    func() error { return h.Thaw(ctx, "x") },
		"export":  func() error { return h.Export(ctx, "x", "h2") },
		"hydrate": func() error { return h.Hydrate(ctx, "x", 0) },
		"layer":   func() error { _, err := h.Layer(ctx, "x"); return err },
	} {
		if err := call(); !drover.Is(err, drover.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	noErr(t, h.Delete(ctx, "x"))
}

func TestDeleteIsRefusedWhileInUse(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	raw := filepath.Join(filepath.Dir(h.cfg.Dir), "image.raw")
	noErr(t, os.WriteFile(raw, pattern(3, 10000), 0o600))
	img := must[drover.LayerStatus](t)(h.ImportImage(ctx, "img_1", raw))
	if img.State != drover.LayerImage || img.Size != 12288 {
		t.Errorf("image: %+v", img)
	}
	if _, err := os.Stat(raw); !os.IsNotExist(err) {
		t.Errorf("the imported file is still there: %v", err)
	}
	must[drover.LayerStatus](t)(h.ImportImage(ctx, "img_1", raw)) // again, after a crash of the caller
	must[drover.LayerStatus](t)(h.CreateLayer(ctx, drover.LayerSpec{ID: "root_1", Disk: "root_1", Size: drover.MiB, Base: "img_1"}))
	wantCode(t, h.Delete(ctx, "img_1"), drover.Precondition)
	h.open("root_1", 1)
	wantCode(t, h.Delete(ctx, "root_1"), drover.Precondition)
	noErr(t, h.Close(ctx, "root_1"))
	noErr(t, h.Export(ctx, "root_1", "h2"))
	wantCode(t, h.Delete(ctx, "root_1"), drover.Precondition)
	noErr(t, h.Unexport(ctx, "root_1", "h2"))
	noErr(t, h.Delete(ctx, "root_1"))
	noErr(t, h.Delete(ctx, "root_1"))
	noErr(t, h.Delete(ctx, "img_1"))
	for _, dir := range []string{filepath.Join(h.cfg.Dir, "layers"), filepath.Join(h.cfg.Dir, "trash"), filepath.Join(h.cfg.RunDir, "maps")} {
		if entries := must[[]os.DirEntry](t)(os.ReadDir(dir)); len(entries) != 0 {
			t.Errorf("%s holds %v", dir, entries)
		}
	}
}

func TestImageIsTheBaseAndNeverChanges(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	ctx := t.Context()
	raw := filepath.Join(filepath.Dir(h.cfg.Dir), "image.raw")
	image := pattern(3, 64*1024)
	noErr(t, os.WriteFile(raw, image, 0o600))
	must[drover.LayerStatus](t)(h.ImportImage(ctx, "img", raw))
	_, err := h.Open(ctx, "img", 1)
	wantCode(t, err, drover.Precondition)
	for _, id := range []drover.LayerID{"root_1", "root_2"} {
		must[drover.LayerStatus](t)(h.CreateLayer(ctx, drover.LayerSpec{ID: id, Disk: drover.DiskID(id), Size: drover.MiB, Base: "img"}))
	}
	c := h.open("root_1", 1)
	want := append([]byte(nil), image...)
	patch := pattern(8, 5000)
	copy(want[3000:], patch)
	noErr(t, c.WriteAt(ctx, patch, 3000, true))
	noErr(t, c.Discard(ctx, 40000, 9000, false))
	clear(want[40000:49000])
	got := make([]byte, len(want))
	noErr(t, c.ReadAt(ctx, got, 0))
	if string(got) != string(want) {
		t.Error("the layer over the image reads something else")
	}
	noErr(t, h.dial("root_2").ReadAt(ctx, got, 0))
	if string(got) != string(image) {
		t.Error("the other machine sees a foreign write")
	}
	h.halt()
	h.start()
	noErr(t, h.dial("root_1").ReadAt(ctx, got, 0))
	if string(got) != string(want) {
		t.Error("after the restart the layer reads something else")
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	cfg := h.cfg
	cfg.Listen, cfg.RunDir = "", shortDir(t)
	err := Run(context.Background(), cfg)
	wantCode(t, err, drover.Conflict)
	if !strings.Contains(err.Error(), h.cfg.Dir) {
		t.Errorf("the text does not name the pool: %v", err)
	}
	if entries := must[[]os.DirEntry](t)(os.ReadDir(cfg.RunDir)); len(entries) != 0 {
		t.Errorf("the refused daemon left %v", entries)
	}
	cfg = h.cfg
	cfg.Listen, cfg.Dir = "", shortDir(t)
	wantCode(t, Run(context.Background(), cfg), drover.Conflict)
	if _, err := h.Layers(t.Context()); err != nil {
		t.Errorf("the first daemon's socket was taken away: %v", err)
	}
}

func TestStaleSocketsAreReplaced(t *testing.T) {
	h := prepareHost(t, newCA(t), "h1")
	noErr(t, os.MkdirAll(h.cfg.RunDir, 0o700))
	for _, name := range []string{controlSocket, nbdSocket} {
		noErr(t, os.WriteFile(filepath.Join(h.cfg.RunDir, name), nil, 0o600))
	}
	h.start()
	t.Cleanup(h.halt)
	st := must[os.FileInfo](t)(os.Stat(filepath.Join(h.cfg.RunDir, controlSocket)))
	if st.Mode().Perm() != 0o600 {
		t.Errorf("the control socket has mode %v", st.Mode())
	}
}

func TestUnansweredDaemonIsUnavailable(t *testing.T) {
	_, err := NewClient(filepath.Join(t.TempDir(), "none")).Layers(t.Context())
	wantCode(t, err, drover.Unavailable)
}

// A layer whose files are damaged is refused by name; the others are served.
func TestDamageRefusesItsLayerOnly(t *testing.T) {
	damage := map[string]func(t *testing.T, dir string){
		"map header":  func(t *testing.T, dir string) { poke(t, filepath.Join(dir, mapName), 20) },
		"map version": func(t *testing.T, dir string) { poke(t, filepath.Join(dir, mapName), 8) },
		"map sector":  func(t *testing.T, dir string) { poke(t, filepath.Join(dir, mapName), mapHeaderSize+100) },
		"map cut off": func(t *testing.T, dir string) { noErr(t, os.Truncate(filepath.Join(dir, mapName), 5000)) },
		"map gone":    func(t *testing.T, dir string) { noErr(t, os.Remove(filepath.Join(dir, mapName))) },
		"data cut":    func(t *testing.T, dir string) { noErr(t, os.Truncate(filepath.Join(dir, dataFile), 4096)) },
		"data gone":   func(t *testing.T, dir string) { noErr(t, os.Remove(filepath.Join(dir, dataFile))) },
		"record":      func(t *testing.T, dir string) { poke(t, filepath.Join(dir, metaFile), 100) },
		"record gone": func(t *testing.T, dir string) { noErr(t, os.Remove(filepath.Join(dir, metaFile))) },
	}
	for name, do := range damage {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, newCA(t), "h1")
			h.create("vol_good", drover.MiB)
			must[drover.LayerStatus](t)(h.CreateLayer(t.Context(), drover.LayerSpec{ID: "vol_bad", Disk: "vol_bad", Size: drover.MiB,
				Parent: &drover.Export{Layer: "p", Size: drover.MiB, Host: "h2", Address: "127.0.0.1:1", Name: "p"}}))
			h.halt()
			do(t, h.layerDir("vol_bad"))
			h.start()
			_, err := h.Open(t.Context(), "vol_bad", 1)
			wantCode(t, err, drover.Internal)
			if !strings.Contains(err.Error(), "vol_bad") {
				t.Errorf("the text names no layer: %v", err)
			}
			t.Log(err)
			h.open("vol_good", 1)
			for _, s := range must[[]drover.LayerStatus](t)(h.Layers(t.Context())) {
				if (s.ID == "vol_bad") != (s.Trouble != "") {
					t.Errorf("status: %+v", s)
				}
			}
			noErr(t, h.Delete(t.Context(), "vol_bad"))
		})
	}
}

func (h *testHost) layerDir(id drover.LayerID) string {
	return filepath.Join(h.cfg.Dir, "layers", string(id))
}

// poke changes one byte of a file.
func poke(t *testing.T, path string, at int64) {
	t.Helper()
	b := must[[]byte](t)(os.ReadFile(path))
	b[at] ^= 0x40
	noErr(t, os.WriteFile(path, b, 0o600))
}

func TestLeftoversOfACrashAreRemoved(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	h.create("vol_a", drover.MiB)
	h.halt()
	for _, dir := range []string{"new/vol_b.1", "trash/vol_c.1"} {
		noErr(t, os.MkdirAll(filepath.Join(h.cfg.Dir, dir), 0o700))
		noErr(t, os.WriteFile(filepath.Join(h.cfg.Dir, dir, "data"), []byte("half"), 0o600))
	}
	noErr(t, os.WriteFile(filepath.Join(h.cfg.RunDir, "maps", "vol_c.map"), []byte("stray"), 0o600))
	h.start()
	if all := must[[]drover.LayerStatus](t)(h.Layers(t.Context())); len(all) != 1 || all[0].ID != "vol_a" {
		t.Errorf("layers: %+v", all)
	}
	for _, dir := range []string{filepath.Join(h.cfg.Dir, "new"), filepath.Join(h.cfg.Dir, "trash"), filepath.Join(h.cfg.RunDir, "maps")} {
		if entries := must[[]os.DirEntry](t)(os.ReadDir(dir)); len(entries) != 0 {
			t.Errorf("%s holds %v", dir, entries)
		}
	}
}

// A layer over an image of which every block was written costs nothing beyond its file.
func TestFullyWrittenLayerBecomesPlain(t *testing.T) {
	h := newHost(t, newCA(t), "h1")
	raw := filepath.Join(filepath.Dir(h.cfg.Dir), "image.raw")
	noErr(t, os.WriteFile(raw, pattern(3, mib), 0o600))
	must[drover.LayerStatus](t)(h.ImportImage(t.Context(), "img", raw))
	must[drover.LayerStatus](t)(h.CreateLayer(t.Context(), drover.LayerSpec{ID: "root_1", Disk: "root_1", Size: drover.MiB, Base: "img"}))
	noErr(t, h.open("root_1", 1).WriteAt(t.Context(), pattern(4, mib), 0, false))
	h.halt()
	h.start()
	got := make([]byte, mib)
	noErr(t, h.dial("root_1@1").ReadAt(t.Context(), got, 0))
	if string(got) != string(pattern(4, mib)) {
		t.Error("the layer reads something else than was written")
	}
	if _, err := os.Stat(filepath.Join(h.layerDir("root_1"), mapName)); !os.IsNotExist(err) {
		t.Errorf("the layer still has a map: %v", err)
	}
}
