package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"drover"
)

// closedPort returns a loopback address at which nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestResolveErrors(t *testing.T) {
	host := startRegistry(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.Contains(r.URL.Path, "/private/"):
				http.Error(w, `{"errors":[{"code":"DENIED","message":"no"}]}`, http.StatusForbidden)
			case strings.Contains(r.URL.Path, "/broken/"):
				http.Error(w, "sorry", http.StatusServiceUnavailable)
			default:
				h.ServeHTTP(w, r)
			}
		})
	})
	push(t, host+"/app:v1", imageOf(t, []entry{regular("a", "a")}))
	push(t, host+"/arm:v1", imageFor(t, "arm64", []entry{regular("a", "a")}))
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: imageFor(t, "arm64"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: imageFor(t, "s390x"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}})
	ref, err := name.ParseReference(host + "/exotic:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text := filepath.Join(dir, "text.tar")
	zipped := filepath.Join(dir, "zipped.tar")
	for path, content := range map[string]string{text: "this is no tar", zipped: "\x1f\x8b\x08more"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, _ := newStore(t)
	dead := closedPort(t)
	for _, c := range []struct {
		image string
		code  drover.Code
		words []string
	}{
		{"", drover.Invalid, []string{"missing", "busybox"}},
		{"UPPER CASE", drover.Invalid, []string{"UPPER CASE", "registry.example"}},
		{"docker://busybox", drover.Invalid, []string{`"docker"`}},
		{"/srv/layout", drover.Invalid, []string{"oci:/path"}},
		{host + "/app:nope", drover.NotFound, []string{host, `"nope"`, "skopeo list-tags"}},
		{host + "/nope:v1", drover.NotFound, []string{`"nope"`}},
		{host + "/app@sha256:" + strings.Repeat("0", 64), drover.NotFound, []string{"sha256:000"}},
		{host + "/private/app:v1", drover.Denied, []string{"private/app", "credentials"}},
		{host + "/broken/app:v1", drover.Unavailable, []string{host}},
		{dead + "/app:v1", drover.Unavailable, []string{dead, "reach"}},
		{host + "/arm:v1", drover.Invalid, []string{"linux/arm64", "--platform linux/amd64"}},
		{host + "/exotic:v1", drover.Invalid, []string{"linux/arm64, linux/s390x"}},
		{"oci:", drover.Invalid, []string{"path"}},
		{"oci:relative/path", drover.Invalid, []string{"not absolute"}},
		{"oci:/does/not/exist:v1", drover.NotFound, []string{"/does/not/exist", "every host"}},
		{"oci:" + dir, drover.Invalid, []string{"index.json"}},
		{"tar:" + text, drover.Invalid, []string{"not a tar file"}},
		{"tar:" + zipped, drover.Invalid, []string{"gunzip"}},
		{"tar:" + dir, drover.Invalid, []string{"regular file"}},
	} {
		_, err := s.Resolve(t.Context(), c.image)
		if err == nil {
			t.Errorf("%q: no error", c.image)
			continue
		}
		t.Run(c.image, func(t *testing.T) { wantError(t, err, c.code, append(c.words, c.image)...) })
	}
}

func TestPlatformIsChosenFromAnIndex(t *testing.T) {
	host := startRegistry(t, nil)
	want := imageOf(t, []entry{regular("arch", "amd64")})
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: imageFor(t, "arm64"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: want, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}})
	ref, err := name.ParseReference(host + "/multi:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index); err != nil {
		t.Fatal(err)
	}
	digest, err := want.Digest()
	if err != nil {
		t.Fatal(err)
	}
	s, p := newStore(t)
	layer := ensure(t, s, host+"/multi:v1")
	if layer.Ref.Digest != digest.String() {
		t.Errorf("digest %s, want %s", layer.Ref.Digest, digest)
	}
	if got := debugfs(t, p.path(layer.Layer), "cat /arch"); got != "amd64" {
		t.Errorf("%q", got)
	}
}

// writeLayout makes a layout folder with images under tags.
func writeLayout(t *testing.T, images map[string]v1.Image) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "lay:out") // a colon in the path must not look like a tag
	lp, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for tag, img := range images {
		if err := lp.AppendImage(img, layout.WithAnnotations(map[string]string{annotationRef: tag})); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLayoutFolder(t *testing.T) {
	dir := writeLayout(t, map[string]v1.Image{
		"one": imageOf(t, []entry{regular("which", "one")}), "two": imageOf(t, []entry{regular("which", "two")}),
	})
	s, p := newStore(t)
	layer := ensure(t, s, "oci:"+dir+":two")
	if got := debugfs(t, checked(t, p, layer.Layer), "cat /which"); got != "two" {
		t.Errorf("%q", got)
	}
	if layer.Ref.Tag != "two" || layer.Ref.Repository != "oci:"+dir {
		t.Errorf("ref %+v", layer.Ref)
	}
	_, err := s.Resolve(t.Context(), "oci:"+dir)
	wantError(t, err, drover.Invalid, "2 images", "one", "two")
	_, err = s.Resolve(t.Context(), "oci:"+dir+":three")
	wantError(t, err, drover.NotFound, `"three"`, "one", "two")

	// The same path on another host has something else.
	other := writeLayout(t, map[string]v1.Image{"two": imageOf(t, []entry{regular("which", "other")})})
	_, err = s.Ensure(t.Context(), "oci:"+other+":two", drover.ImageRef{Digest: "sha256:" + strings.Repeat("1", 64)}, nil)
	wantError(t, err, drover.NotFound, "this host", "sha256/111", "every host")
}

func TestArchives(t *testing.T) {
	img := imageOf(t, []entry{regular("which", "archive")}, []entry{regular("second", "layer")})
	tag, err := name.NewTag("example.com/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	docker := filepath.Join(t.TempDir(), "docker.tar")
	if err := tarball.WriteToFile(docker, tag, img); err != nil {
		t.Fatal(err)
	}
	ociTar := filepath.Join(t.TempDir(), "oci.tar")
	dir := writeLayout(t, map[string]v1.Image{"v1": img})
	if out, err := exec.Command("tar", "-C", dir, "-cf", ociTar, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for _, image := range []string{"tar:" + docker, "tar:" + docker + ":example.com/app:v1", "tar:" + ociTar, "tar:" + ociTar + ":v1"} {
		s, p := newStore(t)
		layer := ensure(t, s, image)
		if got := debugfs(t, checked(t, p, layer.Layer), "cat /which"); got != "archive" {
			t.Errorf("%s: %q", image, got)
		}
	}
	s, _ := newStore(t)
	_, err = s.Resolve(t.Context(), "tar:"+docker+":example.com/app:v2")
	wantError(t, err, drover.NotFound, "example.com/app:v1")
	_, err = s.Ensure(t.Context(), "tar:"+docker, drover.ImageRef{Digest: "sha256:" + strings.Repeat("2", 64)}, nil)
	wantError(t, err, drover.NotFound, "this host", "every host")
}

// rawImage is an image of one layer with exactly these bytes, whatever they are.
func rawImage(t *testing.T, raw []byte) v1.Image {
	t.Helper()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(imageOf(t), l)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestEvilLayers(t *testing.T) {
	good := tarOf(t, regular("a", strings.Repeat("a", 5000)))
	badOwner := regular("owned", "x")
	badOwner.Uid = -5
	badOwner.Format = tar.FormatGNU
	for label, img := range map[string]v1.Image{
		"link to nothing":   imageOf(t, []entry{link(tar.TypeLink, "a", "../../etc/passwd")}),
		"link to directory": imageOf(t, []entry{directory("d"), link(tar.TypeLink, "a", "d")}),
		"path through file": imageOf(t, []entry{regular("f", "x"), regular("f/below", "x")}),
		"symlink loop":      imageOf(t, []entry{link(tar.TypeSymlink, "l", "l"), regular("l/x", "x")}),
		"root replaced":     imageOf(t, []entry{link(tar.TypeSymlink, "./", "/etc")}),
		"negative owner":    imageOf(t, []entry{badOwner}),
		"too deep":          imageOf(t, []entry{directory(strings.Repeat("d/", 5000))}),
		"unknown type":      imageOf(t, []entry{{Header: tar.Header{Typeflag: 'Z', Name: "z"}}}),
		"cut tar":           rawImage(t, good[:3000]),
		"garbage":           rawImage(t, bytes.Repeat([]byte("garbage!"), 1000)),
		"long name":         imageOf(t, []entry{regular(strings.Repeat("n", 300), "x")}),
	} {
		t.Run(label, func(t *testing.T) {
			host := startRegistry(t, nil)
			push(t, host+"/evil:v1", img)
			s, p := newStore(t)
			ref, err := s.Resolve(t.Context(), host+"/evil:v1")
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Ensure(t.Context(), host+"/evil:v1", ref.ImageRef, nil)
			wantError(t, err, drover.Invalid, "evil:v1", "layer 1 of 1")
			if p.imports != 0 {
				t.Error("a layer was made")
			}
		})
	}
}

// TestDamagedLayer changes a blob of a layout: gzip still holds, the digest does not.
func TestDamagedLayer(t *testing.T) {
	img := imageOf(t, []entry{regular("a", "good content")})
	dir := writeLayout(t, map[string]v1.Image{"v1": img})
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if _, err := z.Write(tarOf(t, regular("a", "evil content"))); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, blobPath(digest.String())), buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ := newStore(t)
	ref, err := s.Resolve(t.Context(), "oci:"+dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Ensure(t.Context(), "oci:"+dir, ref.ImageRef, nil)
	wantError(t, err, drover.Invalid, "damaged", "digest")
}

// A folder whose image was made anew has another image under the same name: what was pinned before is not to be had any more, and that is said before
// anybody tries to fetch it.
func TestWhatWasPinnedIsGoneFromAFolderThatWasMadeAnew(t *testing.T) {
	s, _ := newStore(t)
	image := "oci:" + writeLayout(t, map[string]v1.Image{"v1": imageOf(t, []entry{regular("a", "old")})})
	old, err := s.Resolve(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Fetchable(t.Context(), image, old.ImageRef); err != nil {
		t.Fatal(err)
	}
	anew := writeLayout(t, map[string]v1.Image{"v1": imageOf(t, []entry{regular("a", "new")})})
	dir := strings.TrimPrefix(image, "oci:")
	if err := errors.Join(os.RemoveAll(dir), os.Rename(anew, dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	wantError(t, s.Fetchable(t.Context(), image, old.ImageRef), drover.NotFound, image, "same content")
}

// fullDiskEnv tells a child of the test that it is the one in a mount namespace of its own.
const fullDiskEnv = "DROVER_OCI_FULL_DISK"

// TestFullDisk runs itself again in a user and mount namespace, with a work directory on a file system of a few MiB.
func TestFullDisk(t *testing.T) {
	if os.Getenv(fullDiskEnv) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFullDisk$", "-test.v")
		cmd.Env = append(os.Environ(), fullDiskEnv+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	s, err := New(Config{WorkDir: filepath.Join(dir, "images"), Storage: newPool(dir), RootSize: drover.GiB})
	if err != nil {
		t.Fatal(err)
	}
	// Compresses well: small to fetch, too large to write.
	image := "oci:" + writeLayout(t, map[string]v1.Image{"v1": imageOf(t, []entry{regular("big", strings.Repeat("compressible ", 2<<20))})})
	ref, err := s.Resolve(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Ensure(t.Context(), image, ref.ImageRef, nil)
	wantError(t, err, drover.Exhausted, image, "MiB left", "free space")
	noTempFiles(t, s)
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if used := (st.Blocks - st.Bfree) * uint64(st.Bsize); used > 64<<10 {
		t.Errorf("%d bytes are left behind", used)
	}
	if err := os.RemoveAll(s.cfg.WorkDir); err != nil {
		t.Fatal(err)
	}
}
