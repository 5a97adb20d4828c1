package oci

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"drover"
)

// openRegistry finds an image in a registry. Every blob that it reads is checked against its digest.
func (s *Store) openRegistry(ctx context.Context, image, digest string) (*source, error) {
	ref, err := s.parse(image)
	if err != nil {
		return nil, err
	}
	out := &source{image: image, ref: drover.ImageRef{Registry: ref.Context().RegistryStr(), Repository: ref.Context().RepositoryStr()}}
	if out.ref.Registry == name.DefaultRegistry {
		out.ref.Registry = "docker.io"
	}
	if tag, ok := ref.(name.Tag); ok {
		out.ref.Tag = tag.TagStr()
	}
	if digest != "" {
		ref = ref.Context().Digest(digest)
	}
	opts := s.remoteOptions(ctx)
	desc, err := remote.Get(ref, opts...)
	if err != nil {
		return nil, s.registryError(ctx, image, ref, err)
	}
	if desc.MediaType.IsIndex() {
		index, err := desc.ImageIndex()
		if err != nil {
			return nil, s.registryError(ctx, image, ref, err)
		}
		manifest, err := index.IndexManifest()
		if err != nil {
			return nil, drover.Errorf(drover.Invalid, "image %q: its index is damaged: %w", image, err)
		}
		chosen, err := choose(image, manifest)
		if err != nil {
			return nil, err
		}
		ref = ref.Context().Digest(chosen.Digest.String())
		if desc, err = remote.Get(ref, opts...); err != nil {
			return nil, s.registryError(ctx, image, ref, err)
		}
	}
	if !desc.MediaType.IsImage() {
		return nil, drover.Errorf(drover.Invalid, "image %q is of the type %q, which is not an image with a manifest (schema 2 or OCI)",
			image, desc.MediaType).WithHint("push the image again with a current tool")
	}
	out.ref.Digest = desc.Digest.String()
	img, err := desc.Image()
	if err != nil {
		return nil, s.registryError(ctx, image, ref, err)
	}
	raw, err := img.RawConfigFile()
	if err != nil {
		return nil, s.registryError(ctx, image, ref, err)
	}
	if err := out.setConfig(raw); err != nil {
		return nil, err
	}
	return out, out.addLayers(img)
}

// addLayers takes the layers from the library's image.
func (s *source) addLayers(img v1.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return drover.Errorf(drover.Invalid, "image %q: its manifest is damaged: %w", s.image, err)
	}
	for _, l := range layers {
		digest, err := l.Digest()
		if err != nil {
			return drover.Errorf(drover.Invalid, "image %q: its manifest is damaged: %w", s.image, err)
		}
		size, err := l.Size()
		if err != nil {
			return drover.Errorf(drover.Invalid, "image %q: its manifest is damaged: %w", s.image, err)
		}
		s.layers = append(s.layers, layerSource{digest: digest.String(), size: size, open: l.Compressed})
	}
	return nil
}

// parse reads a registry reference.
func (s *Store) parse(image string) (name.Reference, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "image %q is not the name of an image: %w", image, err).WithHint(nameHint)
	}
	if slices.Contains(s.cfg.Insecure, ref.Context().RegistryStr()) {
		return name.ParseReference(image, name.Insecure)
	}
	return ref, nil
}

func (s *Store) remoteOptions(ctx context.Context) []remote.Option {
	reach := s.cfg.Transport
	if reach == nil {
		reach = remote.DefaultTransport
	}
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithTransport(reach),
		remote.WithAuthFromKeychain(s.cfg.Keychain),
		remote.WithUserAgent("drover"),
		remote.WithRetryBackoff(remote.Backoff{Duration: 300 * time.Millisecond, Factor: 3, Steps: 3}),
	}
}

// registryError translates the library's errors.
func (s *Store) registryError(ctx context.Context, image string, ref name.Reference, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, context.DeadlineExceeded) {
			return drover.Errorf(drover.Unavailable, "image %q: the registry %s did not answer in time: %w", image, ref.Context().RegistryStr(), err)
		}
		return drover.Errorf(drover.Canceled, "image %q: looking it up was given up: %w", image, cause)
	}
	registry, repo := ref.Context().RegistryStr(), ref.Context().RepositoryStr()
	var answer *transport.Error
	if errors.As(err, &answer) {
		return answerError(image, registry, repo, ref.Identifier(), answer)
	}
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return drover.Errorf(drover.NotFound, "image %q: there is no registry host %q: %w", image, registry, err).WithHint(nameHint)
	}
	return drover.Errorf(drover.Unavailable, "image %q: the registry %s does not answer: %w", image, registry, err).
		WithHint("check that %s is a registry that this host can reach; one without TLS must be configured as insecure", registry)
}

// answerError translates an answer of the registry's.
func answerError(image, registry, repo, identifier string, answer *transport.Error) error {
	has := func(codes ...transport.ErrorCode) bool {
		return slices.ContainsFunc(answer.Errors, func(d transport.Diagnostic) bool { return slices.Contains(codes, d.Code) })
	}
	switch {
	case has(transport.NameUnknownErrorCode):
		return drover.Errorf(drover.NotFound, "image %q: the registry %s has no repository %q", image, registry, repo).WithHint(nameHint)
	case has(transport.ManifestUnknownErrorCode) || answer.StatusCode == http.StatusNotFound:
		return drover.Errorf(drover.NotFound, "image %q: the repository %s/%s has no %q", image, registry, repo, identifier).
			WithHint("list what is there, for example with: skopeo list-tags docker://%s/%s", registry, repo)
	case answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden:
		return drover.Errorf(drover.Denied, "image %q: the registry %s refuses the repository %q: it does not exist, or needs credentials: %w",
			image, registry, repo, answer).WithHint("give the host credentials for %s in its docker config file", registry)
	case answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode >= 500:
		return drover.Errorf(drover.Unavailable, "image %q: the registry %s cannot answer now: %w", image, registry, answer)
	default:
		return drover.Errorf(drover.Invalid, "image %q: the registry %s refuses the request: %w", image, registry, answer).WithHint(nameHint)
	}
}
