package oci

import (
	"archive/tar"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"drover"
)

// richImage has everything that a layer can do.
func richImage(t *testing.T) v1.Image {
	su := regular("bin/su", strings.Repeat("su", 5000))
	su.Mode, su.Uid, su.Gid = 0o4755, 0, 42
	ping := regular("bin/ping", "ping")
	ping.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	odd := regular("home/odd", "odd")
	odd.Uid, odd.Gid = 100_000, 200_000
	null := entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3}}
	return imageOf(t,
		[]entry{directory("bin/"), su, link(tar.TypeLink, "bin/su2", "bin/su"), ping, odd, null, regular("etc/old", "old"),
			regular("opaque/lower", "lower"), regular("gone/deep/file", "x"), link(tar.TypeSymlink, "escape", "../../../../../../../../tmp")},
		[]entry{regular("etc/.wh.old", ""), regular("etc/new", "new"), regular("opaque/.wh..wh..opq", ""), regular("opaque/upper", "upper"),
			regular(".wh.gone", ""), regular("escape/drover-oci-evil", "inside"), regular("../../drover-oci-evil2", "inside too"),
			regular("name with \"quotes\" and ü", "odd name")},
	)
}

func TestRegistryImage(t *testing.T) {
	s, p := newStore(t)
	host := startRegistry(t, nil)
	push(t, host+"/team/app:v1", richImage(t))
	layer := ensure(t, s, host+"/team/app:v1")

	want := drover.ImageConfig{Entrypoint: []string{"/bin/app"}, Cmd: []string{"serve"}, Env: []string{"A=1"}, WorkDir: "/srv", User: "app", StopSignal: "SIGQUIT"}
	if got := layer.Run; !slices.Equal(got.Entrypoint, want.Entrypoint) || got.User != "app" || got.WorkDir != "/srv" || got.StopSignal != "SIGQUIT" {
		t.Errorf("config %+v", got)
	}
	if layer.Ref.Registry != host || layer.Ref.Repository != "team/app" || layer.Ref.Tag != "v1" || layer.Ref.Labels["team"] != "blue" {
		t.Errorf("ref %+v", layer.Ref)
	}
	if layer.Size != 256*drover.MiB {
		t.Errorf("size %d", layer.Size)
	}
	image := checked(t, p, layer.Layer)
	for command, want := range map[string]string{
		"cat /etc/new": "new", "cat /opaque/upper": "upper", "cat /tmp/drover-oci-evil": "inside", "cat /drover-oci-evil2": "inside too",
		"stat /bin/su": "Mode:  04755", "stat /bin/su2": "Links: 2", "stat /home/odd": "User: 100000   Group: 200000", "stat /dev/null": "01:03",
		"ea_list /bin/ping": "security.capability (20) = 01 00 00 02", "ls -p /": `name with "quotes" and ü`,
	} {
		if got := debugfs(t, image, command); !strings.Contains(got, want) {
			t.Errorf("%s lacks %q: %s", command, want, got)
		}
	}
	for command, hidden := range map[string]string{"ls -p /etc": "old", "ls -p /opaque": "lower", "ls -p /": "gone"} {
		if got := debugfs(t, image, command); strings.Contains(got, hidden) {
			t.Errorf("%s still has %s: %s", command, hidden, got)
		}
	}
	for _, path := range []string{"/tmp/drover-oci-evil", "/drover-oci-evil2", filepath.Join(s.cfg.WorkDir, "..", "..", "drover-oci-evil2")} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s was written on the host", path)
		}
	}
}

func TestOneDigestMakesOneImageOnEveryHost(t *testing.T) {
	img := richImage(t)
	host := startRegistry(t, nil)
	push(t, host+"/app:v1", img)
	dir := filepath.Join(t.TempDir(), "layout")
	if _, err := layout.Write(dir, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img})); err != nil {
		t.Fatal(err)
	}
	var ids, sums []string
	for _, image := range []string{host + "/app:v1", host + "/app:v1", "oci:" + dir} {
		s, p := newStore(t)
		layer := ensure(t, s, image)
		ids = append(ids, string(layer.Layer))
		sums = append(sums, fileSum(t, p.path(layer.Layer)))
	}
	if len(slices.Compact(ids)) != 1 || len(slices.Compact(sums)) != 1 {
		t.Errorf("layers %v, sums %v", ids, sums)
	}
}

func TestLayerIsMadeOnce(t *testing.T) {
	var gets sync.Map
	host := startRegistry(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
				n, _ := gets.LoadOrStore(r.URL.Path, 0)
				gets.Store(r.URL.Path, n.(int)+1)
			}
			h.ServeHTTP(w, r)
		})
	})
	push(t, host+"/app:v1", imageOf(t, []entry{regular("a", "a")}))
	s, p := newStore(t)
	ref, err := s.Resolve(t.Context(), host+"/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := s.Ensure(t.Context(), host+"/app:v1", ref.ImageRef, func(string) {}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if p.imports != 1 {
		t.Errorf("%d imports", p.imports)
	}
	// The config is kept: nothing is fetched any more, even by the next process, even without the registry.
	gets.Clear()
	again, err := New(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	layer, err := again.Ensure(t.Context(), host+"/app:v1", ref.ImageRef, nil)
	if err != nil || layer.Run.User != "app" {
		t.Errorf("%+v %v", layer, err)
	}
	gets.Range(func(k, _ any) bool { t.Errorf("fetched again: %v", k); return true })
	// A lost config is fetched again, the layer is not made again.
	if err := os.Remove(s.configPath(layer.Layer)); err != nil {
		t.Fatal(err)
	}
	layer, err = again.Ensure(t.Context(), host+"/app:v1", ref.ImageRef, nil)
	if err != nil || layer.Run.User != "app" || p.imports != 1 {
		t.Errorf("%+v %v, %d imports", layer, err, p.imports)
	}
}

func TestTagMovesDigestStays(t *testing.T) {
	host := startRegistry(t, nil)
	push(t, host+"/app:v1", imageOf(t, []entry{regular("which", "first")}))
	s, p := newStore(t)
	ref, err := s.Resolve(t.Context(), host+"/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	push(t, host+"/app:v1", imageOf(t, []entry{regular("which", "second")}))
	layer, err := s.Ensure(t.Context(), host+"/app:v1", ref.ImageRef, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := debugfs(t, p.path(layer.Layer), "cat /which"); got != "first" {
		t.Errorf("%q", got)
	}
	byDigest, err := s.Resolve(t.Context(), host+"/app@"+ref.Digest)
	if err != nil || byDigest.Digest != ref.Digest {
		t.Errorf("%+v %v", byDigest, err)
	}
}

// stallingRegistry answers for layers with a few bytes and then nothing.
func stallingRegistry(t *testing.T) (host string, asked chan struct{}) {
	asked = make(chan struct{}, 100)
	host = startRegistry(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/slow/blobs/") && r.Header.Get("X-Config") == "" {
				rec := &firstBytes{ResponseWriter: w, left: 200}
				h.ServeHTTP(rec, r)
				if rec.cut {
					w.(http.Flusher).Flush()
					asked <- struct{}{}
					<-r.Context().Done()
				}
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	return host, asked
}

// firstBytes lets small answers through and cuts large ones.
type firstBytes struct {
	http.ResponseWriter
	left int
	cut  bool
}

func (w *firstBytes) Write(p []byte) (int, error) {
	if len(p) < 2000 && !w.cut {
		return w.ResponseWriter.Write(p)
	}
	w.cut = true
	n := min(len(p), w.left)
	w.left -= n
	if _, err := w.ResponseWriter.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

func bulky(t *testing.T) v1.Image {
	var body strings.Builder
	for i := range 20_000 {
		body.WriteString(time.Unix(int64(i*7919), 0).UTC().String())
	}
	return imageOf(t, []entry{regular("bulk", body.String())})
}

func TestStalledDownloadEnds(t *testing.T) {
	host, _ := stallingRegistry(t)
	push(t, host+"/slow:v1", bulky(t))
	s, _ := newStore(t)
	s.cfg.Stall = 100 * time.Millisecond
	ref, err := s.Resolve(t.Context(), host+"/slow:v1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Ensure(t.Context(), host+"/slow:v1", ref.ImageRef, nil)
	wantError(t, err, drover.Unavailable, host+"/slow:v1", "no data came for 100ms")
}

func TestLastCallerEndsTheWork(t *testing.T) {
	host, asked := stallingRegistry(t)
	push(t, host+"/slow:v1", bulky(t))
	s, p := newStore(t)
	ref, err := s.Resolve(t.Context(), host+"/slow:v1")
	if err != nil {
		t.Fatal(err)
	}
	first, cancelFirst := context.WithCancel(t.Context())
	second, cancelSecond := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	for _, ctx := range []context.Context{first, second} {
		go func() {
			_, err := s.Ensure(ctx, host+"/slow:v1", ref.ImageRef, nil)
			errs <- err
		}()
	}
	<-asked
	eventually(t, "two wait", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		f := s.flights[s.LayerID(ref.ImageRef)]
		return f != nil && f.waiters == 2
	})
	cancelFirst()
	wantError(t, <-errs, drover.Canceled)
	s.mu.Lock()
	if s.flights[s.LayerID(ref.ImageRef)] == nil {
		t.Error("the work ended with its first caller")
	}
	s.mu.Unlock()
	cancelSecond()
	wantError(t, <-errs, drover.Canceled)
	if p.imports != 0 || len(s.flights) != 0 {
		t.Errorf("%d imports, flights %v", p.imports, s.flights)
	}
}

func TestStorageThatRestarts(t *testing.T) {
	host := startRegistry(t, nil)
	push(t, host+"/app:v1", imageOf(t, []entry{regular("a", "a")}))
	s, p := newStore(t)
	p.refuse = []error{drover.Errorf(drover.Unavailable, "starting")}
	ensure(t, s, host+"/app:v1")
	if p.imports != 1 {
		t.Errorf("%d imports", p.imports)
	}
	push(t, host+"/app:v2", imageOf(t, []entry{regular("b", "b")}))
	p.refuse = []error{drover.Errorf(drover.Exhausted, "full")}
	ref, err := s.Resolve(t.Context(), host+"/app:v2")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Ensure(t.Context(), host+"/app:v2", ref.ImageRef, nil)
	wantError(t, err, drover.Exhausted, "app:v2", "full")
}

func TestCrashLeftoversAreRemoved(t *testing.T) {
	s, _ := newStore(t)
	for _, name := range []string{".tmp-img-123-456", ".tmp-img-9.json-1"} {
		if err := os.WriteFile(filepath.Join(s.cfg.WorkDir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keep := filepath.Join(s.cfg.WorkDir, "img-9.json")
	if err := os.WriteFile(keep, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(s.cfg); err != nil {
		t.Fatal(err)
	}
	noTempFiles(t, s)
	if _, err := os.Stat(keep); err != nil {
		t.Error(err)
	}
}

func TestProgress(t *testing.T) {
	host := startRegistry(t, nil)
	push(t, host+"/app:v1", bulky(t))
	s, _ := newStore(t)
	ref, err := s.Resolve(t.Context(), host+"/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var told []string
	_, err = s.Ensure(t.Context(), host+"/app:v1", ref.ImageRef, func(text string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, text)
	})
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(told, "\n")
	for _, want := range []string{"fetching " + host + "/app:v1: layer 1 of 1", "MiB/s", "writing the file system", "storing the image"} {
		if !strings.Contains(all, want) {
			t.Errorf("progress lacks %q:\n%s", want, all)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	for _, cfg := range []Config{{}, {WorkDir: t.TempDir()}, {WorkDir: t.TempDir(), Storage: newPool(""), RootSize: 1 << 60}} {
		if _, err := New(cfg); !drover.Is(err, drover.Invalid) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	s, _ := newStore(t)
	_, err := s.Ensure(t.Context(), "x", drover.ImageRef{Digest: "sha256:../../etc"}, nil)
	wantError(t, err, drover.Invalid, "hexadecimal")
	if errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
