package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"drover"
)

// maxDocument bounds the JSON documents of an image.
const maxDocument = 16 << 20

// annotations that name an image in the index of a layout.
const (
	annotationRef        = "org.opencontainers.image.ref.name"
	annotationContainerd = "io.containerd.image.name"
)

// openLocal finds an image in a layout folder or in an archive. The path may be followed by a colon and a tag.
func openLocal(image, form, rest, digest string) (src *source, err error) {
	path, tag := splitTag(rest)
	src = &source{image: image, ref: drover.ImageRef{Repository: form + ":" + path, Tag: tag}}
	var files fileSet
	if form == "oci" {
		files, err = openFolder(path)
	} else {
		files, err = openArchive(path)
	}
	if err != nil {
		return nil, pathError(image, path, err)
	}
	src.closer = files
	if _, ok := files.find("manifest.json"); ok && form == "tar" {
		err = src.openDockerArchive(files, path, tag, digest)
	} else {
		err = src.openLayout(files, path, tag, digest)
	}
	if err != nil {
		return nil, errors.Join(err, src.Close())
	}
	return src, nil
}

// splitTag cuts a tag off. Paths and tags may both have colons ("tar:/a:b.tar:app:v1"): the longest path that exists is the path.
func splitTag(rest string) (path, tag string) {
	path = rest
	for {
		if _, err := os.Stat(path); err == nil {
			return path, strings.TrimPrefix(rest[len(path):], ":")
		}
		at := strings.LastIndexByte(path, ':')
		if at <= 0 {
			return rest, "" // nothing exists: the error names the whole
		}
		path = path[:at]
	}
}

func pathError(image, path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return drover.Errorf(drover.NotFound, "image %q: this host has no %s: %w", image, path, err).
			WithHint("a path must be readable on every host of the fleet; put the image there, or into a registry")
	case errors.Is(err, fs.ErrPermission):
		return drover.Errorf(drover.Denied, "image %q: this host may not read %s: %w", image, path, err)
	default:
		return drover.Errorf(drover.Invalid, "image %q: cannot read %s: %w", image, path, err).WithHint(nameHint)
	}
}

// readDocument reads a JSON document and checks it against the digest, if one is given.
func (s *source) readDocument(files fileSet, name string, want string) ([]byte, error) {
	f, ok := files.find(name)
	if !ok {
		return nil, drover.Errorf(drover.NotFound, "image %q: this host has no %s in it", s.image, name).
			WithHint("a path must lead to the same content on every host of the fleet")
	}
	if f.size > maxDocument {
		return nil, drover.Errorf(drover.Invalid, "image %q: %s has %d bytes, which is no document of an image", s.image, name, f.size)
	}
	r, err := f.open()
	if err != nil {
		return nil, pathError(s.image, name, err)
	}
	raw, err := io.ReadAll(io.LimitReader(r, maxDocument))
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, pathError(s.image, name, err)
	}
	got, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "image %q: %w", s.image, err)
	}
	if want != "" && got.String() != want {
		return nil, drover.Errorf(drover.Invalid, "image %q: %s is damaged: its digest is %s", s.image, name, got)
	}
	return raw, nil
}

func blobPath(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }

// openLayout reads an OCI image layout.
func (s *source) openLayout(files fileSet, path, tag, digest string) error {
	if digest == "" {
		var err error
		if digest, err = s.findInIndex(files, path, tag); err != nil {
			return err
		}
	}
	s.ref.Digest = digest
	raw, err := s.readDocument(files, blobPath(digest), digest)
	if err != nil {
		return err
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return drover.Errorf(drover.Invalid, "image %q: its manifest is not JSON: %w", s.image, err)
	}
	config := manifest.Config.Digest.String()
	if !validDigest(config) {
		return drover.Errorf(drover.Invalid, "image %q: %s is not the manifest of an image", s.image, digest)
	}
	if raw, err = s.readDocument(files, blobPath(config), config); err != nil {
		return err
	}
	if err := s.setConfig(raw); err != nil {
		return err
	}
	for _, l := range manifest.Layers {
		if err := s.addFile(files, blobPath(l.Digest.String()), l.Digest.String()); err != nil {
			return err
		}
	}
	return nil
}

// addFile adds a layer that is a file of the set.
func (s *source) addFile(files fileSet, name, digest string) error {
	f, ok := files.find(name)
	if !ok {
		return drover.Errorf(drover.Invalid, "image %q is not complete: the layer %s is missing", s.image, name)
	}
	s.layers = append(s.layers, layerSource{digest: digest, size: f.size, open: f.open})
	return nil
}

// findInIndex finds the manifest for a tag, or the only one.
func (s *source) findInIndex(files fileSet, path, tag string) (string, error) {
	if _, ok := files.find("index.json"); !ok {
		return "", drover.Errorf(drover.Invalid, "image %q: %s has no index.json: it is not an OCI image layout", s.image, path).WithHint(nameHint)
	}
	index, err := s.readIndex(files, "index.json", "")
	if err != nil {
		return "", err
	}
	var tags []string
	found := slices.DeleteFunc(slices.Clone(index.Manifests), func(d v1.Descriptor) bool {
		name := d.Annotations[annotationRef]
		if name != "" {
			tags = append(tags, name)
		}
		return tag != "" && tag != name && tag != d.Annotations[annotationContainerd]
	})
	if len(found) == 0 {
		return "", drover.Errorf(drover.NotFound, "image %q: %s has no image with the tag %q, only: %s", s.image, path, tag,
			orNone(strings.Join(tags, ", ")))
	}
	// Without a tag, an index of platforms is fine, an index of several images is not.
	if len(found) > 1 && found[0].Platform == nil {
		return "", drover.Errorf(drover.Invalid, "image %q: %s has %d images", s.image, path, len(found)).
			WithHint("add a tag after a colon: %s", orNone(strings.Join(tags, ", ")))
	}
	index.Manifests = found
	for range 4 { // an index may point to an index
		d, err := choose(s.image, index)
		if err != nil {
			return "", err
		}
		if !d.MediaType.IsIndex() {
			return d.Digest.String(), nil
		}
		if index, err = s.readIndex(files, blobPath(d.Digest.String()), d.Digest.String()); err != nil {
			return "", err
		}
	}
	return "", drover.Errorf(drover.Invalid, "image %q: its indexes are nested too deep", s.image)
}

func (s *source) readIndex(files fileSet, name, digest string) (*v1.IndexManifest, error) {
	raw, err := s.readDocument(files, name, digest)
	if err != nil {
		return nil, err
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "image %q: %s is not the JSON of an index: %w", s.image, name, err)
	}
	return index, nil
}

// dockerImage is an entry of manifest.json in a docker-save archive.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// openDockerArchive reads a docker-save archive. It is pinned by the digest of the config, which names every layer's content.
func (s *source) openDockerArchive(files fileSet, path, tag, digest string) error {
	raw, err := s.readDocument(files, "manifest.json", "")
	if err != nil {
		return err
	}
	var images []dockerImage
	if err := json.Unmarshal(raw, &images); err != nil {
		return drover.Errorf(drover.Invalid, "image %q: manifest.json is not that of a docker-save archive: %w", s.image, err)
	}
	var tags []string
	for _, i := range images {
		tags = append(tags, i.RepoTags...)
	}
	images = slices.DeleteFunc(images, func(i dockerImage) bool { return tag != "" && !slices.Contains(i.RepoTags, tag) })
	if digest != "" {
		images, err = s.pinned(files, images, digest)
		if err != nil {
			return err
		}
	}
	switch len(images) {
	case 0:
		return drover.Errorf(drover.NotFound, "image %q: this host has no such image in %s, which has: %s", s.image, path,
			orNone(strings.Join(tags, ", "))).WithHint("a path must lead to the same content on every host of the fleet")
	case 1:
	default:
		return drover.Errorf(drover.Invalid, "image %q: %s has %d images", s.image, path, len(images)).
			WithHint("add a tag after a colon: %s", orNone(strings.Join(tags, ", ")))
	}
	if raw, err = s.readDocument(files, images[0].Config, digest); err != nil {
		return err
	}
	sum, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return drover.Errorf(drover.Internal, "image %q: %w", s.image, err)
	}
	s.ref.Digest = sum.String()
	if err := s.setConfig(raw); err != nil {
		return err
	}
	for _, name := range images[0].Layers {
		if err := s.addFile(files, name, name); err != nil {
			return err
		}
	}
	return nil
}

// pinned keeps the image whose config has the digest.
func (s *source) pinned(files fileSet, images []dockerImage, digest string) ([]dockerImage, error) {
	for _, i := range images {
		raw, err := s.readDocument(files, i.Config, "")
		if err != nil {
			return nil, err
		}
		sum, _, err := v1.SHA256(bytes.NewReader(raw))
		if err != nil {
			return nil, fmt.Errorf("image %q: %w", s.image, err)
		}
		if sum.String() == digest {
			return []dockerImage{i}, nil
		}
	}
	return nil, nil
}

// absPath cleans a name inside a file set.
func absPath(name string) string { return strings.TrimPrefix(filepath.Clean("/"+name), "/") }
