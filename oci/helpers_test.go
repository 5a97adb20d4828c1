package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"drover"
)

// pool is the storage daemon's part: it takes files over by renaming them.
type pool struct {
	dir string

	mu      sync.Mutex
	layers  map[drover.LayerID]drover.LayerStatus
	imports int
	// refuse is returned by the next calls of ImportImage, one each.
	refuse []error
}

func newPool(dir string) *pool {
	return &pool{dir: dir, layers: map[drover.LayerID]drover.LayerStatus{}}
}

func (p *pool) path(id drover.LayerID) string { return filepath.Join(p.dir, string(id)) }

func (p *pool) ImportImage(_ context.Context, id drover.LayerID, path string) (drover.LayerStatus, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.refuse) > 0 {
		err := p.refuse[0]
		p.refuse = p.refuse[1:]
		return drover.LayerStatus{}, err
	}
	p.imports++
	st, err := os.Stat(path)
	if err != nil {
		return drover.LayerStatus{}, err
	}
	if err := os.Rename(path, p.path(id)); err != nil {
		return drover.LayerStatus{}, err
	}
	p.layers[id] = drover.LayerStatus{ID: id, State: drover.LayerImage, Size: drover.Bytes(st.Size())}
	return p.layers[id], nil
}

func (p *pool) Layer(_ context.Context, id drover.LayerID) (drover.LayerStatus, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.layers[id]; ok {
		return s, nil
	}
	return drover.LayerStatus{}, drover.Errorf(drover.NotFound, "no layer %s", id)
}

// newStore makes a Store with a small root size, and its pool.
func newStore(t *testing.T) (*Store, *pool) {
	t.Helper()
	dir := t.TempDir()
	p := newPool(dir)
	s, err := New(Config{WorkDir: filepath.Join(dir, "images"), Storage: p, RootSize: 256 * drover.MiB})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { noTempFiles(t, s) })
	return s, p
}

func noTempFiles(t *testing.T, s *Store) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(s.cfg.WorkDir, ".tmp-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// entry is one entry of a layer to be.
type entry struct {
	tar.Header
	body string
}

func regular(name, body string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: time.Unix(1e9, 0)}, body: body}
}

func directory(name string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: time.Unix(1e9, 0)}}
}

func link(kind byte, name, target string) entry {
	return entry{Header: tar.Header{Typeflag: kind, Name: name, Linkname: target, Mode: 0o777}}
}

func tarOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		e.Size = int64(len(e.body))
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// imageOf makes an image for linux/amd64 of layers, the lowest first.
func imageOf(t *testing.T, layers ...[]entry) v1.Image {
	t.Helper()
	return imageFor(t, "amd64", layers...)
}

func imageFor(t *testing.T, arch string, layers ...[]entry) v1.Image {
	t.Helper()
	img := empty.Image
	for _, entries := range layers {
		raw := tarOf(t, entries...)
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			t.Fatal(err)
		}
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", arch
	c.Config = v1.Config{Entrypoint: []string{"/bin/app"}, Cmd: []string{"serve"}, Env: []string{"A=1"}, WorkingDir: "/srv", User: "app",
		StopSignal: "SIGQUIT", Labels: map[string]string{"team": "blue"}}
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

// startRegistry runs a registry on loopback; wrap may put something in front of it.
func startRegistry(t *testing.T, wrap func(http.Handler) http.Handler) (host string) {
	t.Helper()
	var h http.Handler = registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	if wrap != nil {
		h = wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func push(t *testing.T, ref string, img v1.Image) {
	t.Helper()
	tag, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
}

// ensure resolves an image and makes its layer.
func ensure(t *testing.T, s *Store, image string) drover.ImageLayer {
	t.Helper()
	ref, err := s.Resolve(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	if ref.CompressedSize <= 0 {
		t.Errorf("image %s has a size of %d", image, ref.CompressedSize)
	}
	layer, err := s.Ensure(t.Context(), image, ref.ImageRef, nil)
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

// checked runs e2fsck over a layer's file and returns its path.
func checked(t *testing.T, p *pool, id drover.LayerID) string {
	t.Helper()
	if out, err := exec.Command("e2fsck", "-fn", p.path(id)).CombinedOutput(); err != nil {
		t.Fatalf("e2fsck: %v\n%s", err, out)
	}
	return p.path(id)
}

func debugfs(t *testing.T, image, command string) string {
	t.Helper()
	out, err := exec.Command("debugfs", "-R", command, image).Output()
	if err != nil {
		t.Fatalf("debugfs %s: %v", command, err)
	}
	return string(out)
}

func fileSum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// wantError checks code and words of an error.
func wantError(t *testing.T, err error, code drover.Code, words ...string) {
	t.Helper()
	if !drover.Is(err, code) {
		t.Fatalf("got %v (%s), want %s", err, drover.CodeOf(err), code)
	}
	text := err.Error() + " " + drover.AsError(err).Hint
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("the error lacks %q: %s", w, text)
		}
	}
}

// eventually polls a condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("never happened: " + what)
		}
	}
}
