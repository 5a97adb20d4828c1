package oci

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"regexp"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"drover"
)

// source is one image for this host, wherever it comes from.
type source struct {
	// image is the name as the user wrote it.
	image  string
	ref    drover.ImageRef
	config *v1.ConfigFile
	layers []layerSource
	closer io.Closer
	// abort ends reading from outside, with the reason.
	abort context.CancelCauseFunc
}

// layerSource is one layer of an image, the lowest first.
type layerSource struct {
	// digest is of the blob as it is stored; diffID of the tar in it.
	digest string
	diffID v1.Hash
	// size is that of the blob in bytes.
	size int64
	// open returns the blob as it is stored, perhaps compressed.
	open func() (io.ReadCloser, error)
}

// Close releases what the source holds open.
func (s *source) Close() error {
	if s.closer == nil {
		return nil
	}
	return s.closer.Close()
}

// size is the number of bytes to fetch.
func (s *source) size() int64 {
	n := int64(0)
	for _, l := range s.layers {
		n += l.size
	}
	return n
}

// run is what the image says is to be run.
func (s *source) run() drover.ImageConfig {
	c := s.config.Config
	return drover.ImageConfig{Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, WorkDir: c.WorkingDir, User: c.User, StopSignal: c.StopSignal}
}

const nameHint = "an image is named like busybox:1.36, registry.example:5000/team/app:tag, team/app@sha256:…, " +
	"oci:/path/to/layout[:tag] or tar:/path/to/file.tar"

// open finds the image by its name, or, with a digest, the one that was pinned.
func (s *Store) open(ctx context.Context, image, digest string) (*source, error) {
	var (
		src *source
		err error
	)
	form, rest, _ := strings.Cut(image, ":")
	switch {
	case image == "":
		return nil, drover.Errorf(drover.Invalid, "the image is missing").WithHint(nameHint)
	case form == "oci" || form == "tar":
		if err := checkPath(image, form, rest); err != nil {
			return nil, err
		}
		src, err = openLocal(image, form, rest, digest)
	case strings.HasPrefix(rest, "//") || strings.HasPrefix(image, "/") || strings.HasPrefix(image, "."):
		return nil, drover.Errorf(drover.Invalid, "image %q: %q is not how an image is named", image, form).WithHint(nameHint)
	default:
		src, err = s.openRegistry(ctx, image, digest)
	}
	if err != nil {
		return nil, err
	}
	if err := src.check(); err != nil {
		return nil, errors.Join(err, src.Close())
	}
	src.ref.Labels = src.config.Config.Labels
	return src, nil
}

func checkPath(image, form, path string) error {
	switch {
	case path == "":
		return drover.Errorf(drover.Invalid, "image %q: the path after %q is missing", image, form+":").WithHint(nameHint)
	case !filepath.IsAbs(path):
		return drover.Errorf(drover.Invalid, "image %q: the path %q is not absolute, but each host of the fleet must find it", image, path).
			WithHint("write %s: and the whole path, from / on", form)
	}
	return nil
}

// platform is the only one that machines have.
const platformOS, platformArch = "linux", "amd64"

// check refuses what cannot become a root disk.
func (s *source) check() error {
	c := s.config
	if c.OS != platformOS || c.Architecture != platformArch {
		return drover.Errorf(drover.Invalid, "image %q is for %s/%s, machines are %s/%s", s.image, orNone(c.OS), orNone(c.Architecture),
			platformOS, platformArch).WithHint("build the image with --platform %s/%s", platformOS, platformArch)
	}
	if len(c.RootFS.DiffIDs) != len(s.layers) {
		return drover.Errorf(drover.Invalid, "image %q: its config names %d layers, its manifest %d: this is not a container image", s.image,
			len(c.RootFS.DiffIDs), len(s.layers))
	}
	for i := range s.layers {
		s.layers[i].diffID = c.RootFS.DiffIDs[i]
	}
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// setConfig reads the image's config.
func (s *source) setConfig(raw []byte) error {
	var c v1.ConfigFile
	if err := json.Unmarshal(raw, &c); err != nil {
		return drover.Errorf(drover.Invalid, "image %q: its config is not the JSON of a container image: %w", s.image, err)
	}
	s.config = &c
	return nil
}

// choose picks the manifest for this platform from an index.
func choose(image string, index *v1.IndexManifest) (v1.Descriptor, error) {
	var have []string
	for _, m := range index.Manifests {
		if m.Platform == nil {
			if len(index.Manifests) == 1 {
				return m, nil
			}
			have = append(have, "(none)")
			continue
		}
		if m.Platform.OS == platformOS && m.Platform.Architecture == platformArch {
			return m, nil
		}
		if m.Platform.OS != "unknown" { // attestations
			have = append(have, m.Platform.OS+"/"+m.Platform.Architecture)
		}
	}
	return v1.Descriptor{}, drover.Errorf(drover.Invalid, "image %q is not there for %s/%s, only for %s", image, platformOS, platformArch,
		orNone(strings.Join(have, ", "))).WithHint("build the image with --platform %s/%s", platformOS, platformArch)
}

var digestRE = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func validDigest(d string) bool { return digestRE.MatchString(d) }
