// Command image writes the example's OCI image as a layout folder: the root file system that build-root made of Debian's packages, and pgnode over it.
//
//	image ROOT.tar PGNODE DIR
package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: image ROOT.tar PGNODE DIR")
	}
	root, program, dir := args[0], args[1], args[2]
	if newer(filepath.Join(dir, "index.json"), root, program) {
		return nil
	}
	base, err := tarball.LayerFromFile(root)
	if err != nil {
		return err
	}
	over, err := programLayer(program)
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(empty.Image, base, over)
	if err != nil {
		return err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", "amd64"
	// SIGTERM, because it is the signal that pgnode stops the server at in order.
	file.Config = v1.Config{Entrypoint: []string{"/usr/local/bin/pgnode"}, StopSignal: "SIGTERM",
		Env: []string{"PATH=/usr/local/bin:/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin"}}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return err
	}
	// What is there stays: machines that run an older image are moved to hosts that fetch that one.
	index, err := layout.FromPath(dir)
	if err != nil {
		if index, err = layout.Write(dir, empty.Index); err != nil {
			return err
		}
	}
	const tag = "latest"
	if err := index.ReplaceImage(img, match.Name(tag), layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag})); err != nil {
		return err
	}
	fmt.Printf("oci:%s\n", dir)
	return nil
}

// newer reports whether a file is newer than all others.
func newer(path string, others ...string) bool {
	made, err := os.Stat(path)
	if err != nil {
		return false
	}
	for _, o := range others {
		if s, err := os.Stat(o); err != nil || s.ModTime().After(made.ModTime()) {
			return false
		}
	}
	return true
}

// programLayer is a layer with one program. Its time is fixed so that the same program has the same digest.
func programLayer(path string) (v1.Layer, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	t := tar.NewWriter(&out)
	if err := t.WriteHeader(&tar.Header{Name: "usr/local/bin/pgnode", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(content)), ModTime: time.Unix(0, 0)}); err != nil {
		return nil, err
	}
	if _, err := t.Write(content); err != nil {
		return nil, err
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(out.Bytes())), nil })
}
