package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"drover"
	"drover/internal/durable"
	"drover/oci/ext4"
)

// Storage is what a Store needs of the host's storage daemon. Both may be repeated. ImportImage takes the file over.
type Storage interface {
	ImportImage(ctx context.Context, id drover.LayerID, path string) (drover.LayerStatus, error)
	Layer(ctx context.Context, id drover.LayerID) (drover.LayerStatus, error)
}

// Config is what a Store is made of.
type Config struct {
	// WorkDir holds images in the making and the configs of made ones. It must be on the file system of the storage pool.
	WorkDir string
	Storage Storage
	// RootSize is the size of root disks, unless an image needs more. 0 means 8 GiB. What an image does not fill takes no space.
	// It must be the same on every host of a fleet: it is part of a layer's name.
	RootSize drover.Bytes
	// Keychain has the credentials for registries. nil means those of the user's docker config file.
	Keychain authn.Keychain
	// Insecure lists registries, as "host:port", that are spoken to without TLS.
	Insecure []string
	// Transport is how registries are reached. nil means as the environment says (HTTPS_PROXY and so on).
	Transport http.RoundTripper
	// Stall ends a download that brings no byte for so long. 0 means one minute.
	Stall time.Duration
	Log   *slog.Logger
}

// Store makes layers of images. It is safe for concurrent use.
type Store struct {
	cfg Config

	mu      sync.Mutex
	flights map[drover.LayerID]*flight
}

// resolveTimeout bounds looking an image up.
const resolveTimeout = time.Minute

// New makes a Store and removes what a crash left in WorkDir.
func New(cfg Config) (*Store, error) {
	if cfg.WorkDir == "" || cfg.Storage == nil {
		return nil, drover.Errorf(drover.Invalid, "oci: WorkDir and Storage must be set")
	}
	if cfg.RootSize == 0 {
		cfg.RootSize = 8 * drover.GiB
	}
	if cfg.RootSize < 0 || cfg.RootSize > ext4.MaxSize {
		return nil, drover.Errorf(drover.Invalid, "oci: a root size of %d bytes is not between 1 and %d", cfg.RootSize, int64(ext4.MaxSize))
	}
	if cfg.Keychain == nil {
		cfg.Keychain = authn.DefaultKeychain
	}
	if cfg.Stall == 0 {
		cfg.Stall = time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := durable.MkdirAll(cfg.WorkDir, 0o700); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot make the image work directory: %w", err)
	}
	if err := durable.RemoveTemp(cfg.WorkDir); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot clear the image work directory: %w", err)
	}
	return &Store{cfg: cfg, flights: map[drover.LayerID]*flight{}}, nil
}

// LayerID names the layer of an image: the same on every host with the same root size.
func (s *Store) LayerID(ref drover.ImageRef) drover.LayerID {
	h := sha256.Sum256(fmt.Appendf(nil, "ext4 %s %d %s", ext4.FormatVersion, s.cfg.RootSize, ref.Digest))
	return drover.LayerID("img-" + hex.EncodeToString(h[:12]))
}

// Resolve looks an image up and pins it. Invalid: the name, or what it leads to, cannot be an image for this host. NotFound: there
// is no such image. Denied: the registry refuses. Unavailable: the registry does not answer.
func (s *Store) Resolve(ctx context.Context, image string) (drover.ResolvedImage, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	src, err := s.open(ctx, image, "")
	if err != nil {
		return drover.ResolvedImage{}, err
	}
	return drover.ResolvedImage{ImageRef: src.ref, CompressedSize: drover.Bytes(src.size())}, src.Close()
}

// Fetchable returns nil when what ref pins is there to be fetched, whatever the image's name leads to by now. Errors are those of Resolve.
func (s *Store) Fetchable(ctx context.Context, image string, ref drover.ImageRef) error {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	src, err := s.open(ctx, image, ref.Digest)
	if err != nil {
		return err
	}
	return src.Close()
}

// Ensure makes the image's layer exist in the pool. Concurrent calls for one image share the work, which ends when the last
// caller has given up. Errors are those of Resolve; Exhausted when the disk is too small.
func (s *Store) Ensure(ctx context.Context, image string, ref drover.ImageRef, progress func(string)) (drover.ImageLayer, error) {
	if !validDigest(ref.Digest) {
		return drover.ImageLayer{}, drover.Errorf(drover.Invalid,
			"image %q: the digest %q is not \"sha256:\" and 64 hexadecimal digits", image, ref.Digest)
	}
	if progress == nil {
		progress = func(string) {}
	}
	return s.share(ctx, s.LayerID(ref), progress, func(ctx context.Context, tell func(string)) (drover.ImageLayer, error) {
		return s.ensure(ctx, image, ref, tell)
	})
}

// ensure is Ensure for one caller.
func (s *Store) ensure(ctx context.Context, image string, ref drover.ImageRef, tell func(string)) (drover.ImageLayer, error) {
	id := s.LayerID(ref)
	status, err := s.cfg.Storage.Layer(ctx, id)
	if err != nil && !drover.Is(err, drover.NotFound) {
		return drover.ImageLayer{}, fmt.Errorf("image %q: %w", image, err)
	}
	made := err == nil
	if made {
		run, err := s.loadConfig(id)
		if err == nil {
			return drover.ImageLayer{Layer: id, Size: status.Size, Ref: ref, Run: run}, nil
		}
		s.cfg.Log.Warn("the config of an image is read again", "layer", id, "image", image, "err", err)
	}
	// Whoever sees that a download stands still ends it by its context.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	src, err := s.open(ctx, image, ref.Digest)
	if err != nil {
		return drover.ImageLayer{}, err
	}
	src.abort = cancel
	defer func() {
		if err := src.Close(); err != nil {
			s.cfg.Log.Warn("cannot close an image", "image", image, "err", err)
		}
	}()
	// The config first: a layer that is there has its config in all but the rarest cases.
	if err := s.saveConfig(id, ref, src.run()); err != nil {
		return drover.ImageLayer{}, err
	}
	if !made {
		if status, err = s.build(ctx, id, src, tell); err != nil {
			return drover.ImageLayer{}, err
		}
	}
	return drover.ImageLayer{Layer: id, Size: status.Size, Ref: ref, Run: src.run()}, nil
}

// build writes the ext4 image and hands it to the storage daemon.
func (s *Store) build(ctx context.Context, id drover.LayerID, src *source, tell func(string)) (status drover.LayerStatus, err error) {
	start := time.Now()
	f, err := os.CreateTemp(s.cfg.WorkDir, ".tmp-"+string(id)+"-")
	if err != nil {
		return status, s.diskError(src, err)
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if rmErr := os.Remove(f.Name()); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
	}()
	if err := s.checkSpace(src); err != nil {
		return status, err
	}
	res, err := s.write(ctx, f, src, tell)
	if err != nil {
		return status, err
	}
	tell("storing the image")
	if err := f.Sync(); err != nil {
		return status, s.diskError(src, err)
	}
	status, err = s.importImage(ctx, id, f.Name())
	if err != nil {
		return status, fmt.Errorf("image %q: %w", src.image, err)
	}
	s.cfg.Log.Info("image made", "image", src.image, "layer", id, "digest", src.ref.Digest, "files", res.Inodes,
		"used", res.Used, "size", res.Size, "dur", time.Since(start))
	return status, nil
}

// importImage hands the file over. The storage daemon may be restarting just now: the work of minutes is not thrown away for that.
func (s *Store) importImage(ctx context.Context, id drover.LayerID, path string) (drover.LayerStatus, error) {
	for wait := time.Second; ; wait *= 2 {
		status, err := s.cfg.Storage.ImportImage(ctx, id, path)
		if !drover.Is(err, drover.Unavailable) || wait > 8*time.Second {
			return status, err
		}
		s.cfg.Log.Warn("the storage daemon does not take an image, will ask again", "layer", id, "err", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return status, drover.Errorf(drover.Canceled, "storing layer %s was given up: %w", id, context.Cause(ctx))
		}
	}
}

// storedConfig is WorkDir/LAYER.json.
type storedConfig struct {
	Version int                `json:"version"`
	Layer   drover.LayerID     `json:"layer"`
	Digest  string             `json:"digest"`
	Run     drover.ImageConfig `json:"run"`
}

const configVersion = 1

func (s *Store) configPath(id drover.LayerID) string {
	return filepath.Join(s.cfg.WorkDir, string(id)+".json")
}

func (s *Store) loadConfig(id drover.LayerID) (drover.ImageConfig, error) {
	var c storedConfig
	if err := durable.ReadJSON(s.configPath(id), &c); err != nil {
		return c.Run, err
	}
	if c.Version != configVersion || c.Layer != id {
		return c.Run, fmt.Errorf("%s has version %d of layer %s", s.configPath(id), c.Version, c.Layer)
	}
	return c.Run, nil
}

func (s *Store) saveConfig(id drover.LayerID, ref drover.ImageRef, run drover.ImageConfig) error {
	c := storedConfig{Version: configVersion, Layer: id, Digest: ref.Digest, Run: run}
	if err := durable.WriteJSON(s.configPath(id), c, 0o600); err != nil {
		return drover.Errorf(codeOfDisk(err), "cannot keep the config of image layer %s: %w", id, err)
	}
	return nil
}
