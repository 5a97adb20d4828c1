// Package image makes small OCI images out of Debian's static busybox and any further programs, for the demo, the
// benchmarks and the end-to-end tests. It needs no registry and no Docker: it writes an OCI layout folder.
package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// busybox is where Debian's package busybox-static puts the program.
const busybox = "/bin/busybox"

// applets are the names under which busybox is linked into /bin.
var applets = []string{"sh", "ls", "cat", "echo", "env", "id", "pwd", "hostname", "sleep", "true", "false", "ps", "kill", "df", "mount", "sync", "dd",
	"sha256sum", "md5sum", "head", "tail", "grep", "wc", "date", "touch", "rm", "mkdir", "stat", "nc", "httpd", "ip", "ping", "ping6", "wget", "free", "uname", "nslookup", "seq", "test", "trap", "poweroff"}

// Spec describes an image.
type Spec struct {
	// Programs maps a path in the image to a file of this machine, beside busybox.
	Programs map[string]string
	// Files maps a path in the image to a content.
	Files map[string]string
	// Config is what the image says is to be run.
	Config v1.Config
}

// WriteLayout writes the image as an OCI layout folder at dir, with the tag latest.
func WriteLayout(dir string, spec Spec) error {
	img, err := Build(spec)
	if err != nil {
		return err
	}
	index, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	return index.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "latest"}))
}

// Build makes the image.
func Build(spec Spec) (v1.Image, error) {
	content, err := rootTar(spec)
	if err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", "amd64", spec.Config
	return mutate.ConfigFile(img, file)
}

// rootTar makes the image's one layer. Times are fixed so that the same content has the same digest.
func rootTar(spec Spec) ([]byte, error) {
	var out bytes.Buffer
	t := tar.NewWriter(&out)
	put := func(h *tar.Header, content []byte) error {
		h.ModTime, h.Size = time.Unix(0, 0), int64(len(content))
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err := t.Write(content)
		return err
	}
	for _, dir := range []string{"bin", "dev", "etc", "proc", "sys", "tmp", "run", "root", "data", "var"} {
		mode := int64(0o755)
		if dir == "tmp" {
			mode = 0o1777
		}
		if err := put(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: mode}, nil); err != nil {
			return nil, err
		}
	}
	files := map[string][]byte{
		"etc/passwd": []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"),
		"etc/group":  []byte("root:x:0:\nnogroup:x:65534:\n"),
	}
	for name, content := range spec.Files {
		files[path.Clean("/" + name)[1:]] = []byte(content)
	}
	programs := map[string]string{"bin/busybox": busybox}
	for name, from := range spec.Programs {
		programs[path.Clean("/" + name)[1:]] = from
	}
	for name, from := range programs {
		content, err := os.ReadFile(from)
		if err != nil {
			return nil, fmt.Errorf("cannot put %s into the image: %w", name, err)
		}
		files[name] = content
	}
	for _, name := range sortedKeys(files) {
		mode := int64(0o644)
		if _, program := programs[name]; program {
			mode = 0o755
		}
		if err := put(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode}, files[name]); err != nil {
			return nil, err
		}
	}
	for _, name := range applets {
		if err := put(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), t.Close()
}

func sortedKeys(m map[string][]byte) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
