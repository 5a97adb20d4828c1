package oci

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"drover"
	"drover/oci/ext4"
)

// Names of whiteouts (OCI image spec, "Image Layer Filesystem Changeset").
const (
	whiteoutPrefix = ".wh."
	whiteoutMeta   = ".wh..wh." // an old driver's own files
	whiteoutOpaque = ".wh..wh..opq"
)

const paxXattr = "SCHILY.xattr."

// write makes the ext4 image of all layers in an empty file.
func (s *Store) write(ctx context.Context, f *os.File, src *source, tell func(string)) (ext4.Result, error) {
	b, err := ext4.New(f, ext4.Options{UUID: imageUUID(src.ref.Digest), Label: "root", MinSize: int64(s.cfg.RootSize)})
	if err != nil {
		return ext4.Result{}, s.buildError(src, err)
	}
	m := newMeter(ctx, src, s.cfg.Stall, tell)
	defer m.stop()
	for i, l := range src.layers {
		if i > 0 {
			b.NextLayer()
		}
		m.begin(i)
		if err := s.addLayer(ctx, b, src, l, m); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return ext4.Result{}, s.endedError(src, cause)
			}
			return ext4.Result{}, s.buildError(src, fmt.Errorf("layer %d of %d (%s): %w", i+1, len(src.layers), l.digest, err))
		}
	}
	m.stop()
	tell("writing the file system")
	res, err := b.Finish()
	if err != nil {
		return ext4.Result{}, s.buildError(src, err)
	}
	return res, nil
}

// endedError tells why the work was ended from outside.
func (s *Store) endedError(src *source, cause error) error {
	if errors.Is(cause, errStall) {
		return drover.Errorf(drover.Unavailable, "image %q: fetching it was given up: %w", src.image, cause)
	}
	return drover.Errorf(drover.Canceled, "image %q: making its layer was given up: %w", src.image, cause)
}

// imageUUID makes the file system's UUID (version 8, RFC 9562) of the image's digest, so that every host makes the same.
func imageUUID(digest string) [16]byte {
	h := sha256.Sum256([]byte("drover image " + digest))
	id := [16]byte(h[:16])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// errRead marks errors of reading a layer's bytes, apart from errors of what they say.
var errRead = errors.New("cannot read")

// errDiffID says that a layer is not what the config promised.
var errDiffID = errors.New("its content does not have the digest that the config names")

// addLayer reads one layer to its end and checks what it read.
func (s *Store) addLayer(ctx context.Context, b *ext4.Builder, src *source, l layerSource, m *meter) (err error) {
	blob, err := l.open()
	if err != nil {
		return fmt.Errorf("%w: %w", errRead, err)
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	plain, err := decompress(m.reader(blob))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plain.Close()) }()
	sum := sha256.New()
	all := io.TeeReader(plain, sum)
	tr := tar.NewReader(all)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := addEntry(b, hdr, tr); err != nil {
			return err
		}
	}
	// What follows the end of the archive counts for the digest, and the blob's own check is at its end.
	if _, err := io.Copy(io.Discard, all); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != l.diffID.String() {
		return fmt.Errorf("%w: it has %s, not %s", errDiffID, got, l.diffID)
	}
	return nil
}

// decompress finds out how a blob is compressed by looking at it: media types are not to be relied on.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 256<<10)
	magic, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case len(magic) >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		return gzip.NewReader(br)
	case len(magic) == 4 && string(magic) == "\x28\xb5\x2f\xfd":
		z, err := zstd.NewReader(br, zstd.WithDecoderMaxMemory(256<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	default:
		return io.NopCloser(br), nil
	}
}

// addEntry puts one entry of a layer into the file system.
func addEntry(b *ext4.Builder, hdr *tar.Header, content io.Reader) error {
	dir, base := path.Split(path.Clean("/" + hdr.Name))
	switch {
	case base == whiteoutOpaque:
		return b.Opaque(dir)
	case strings.HasPrefix(base, whiteoutMeta):
		return nil
	case strings.HasPrefix(base, whiteoutPrefix):
		return b.Whiteout(path.Join(dir, strings.TrimPrefix(base, whiteoutPrefix)))
	}
	attr, err := attrOf(hdr)
	if err != nil {
		return err
	}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return b.File(hdr.Name, attr, hdr.Size, content)
	case tar.TypeDir:
		return b.Dir(hdr.Name, attr)
	case tar.TypeSymlink:
		return b.Symlink(hdr.Name, attr, hdr.Linkname)
	case tar.TypeLink:
		return b.Link(hdr.Name, hdr.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		if hdr.Devmajor < 0 || hdr.Devmajor > math.MaxUint32 || hdr.Devminor < 0 || hdr.Devminor > math.MaxUint32 {
			return fmt.Errorf("%q: device number %d:%d is out of range (%w)", hdr.Name, hdr.Devmajor, hdr.Devminor, ext4.ErrInput)
		}
		return b.Device(hdr.Name, attr, hdr.Typeflag == tar.TypeBlock, uint32(hdr.Devmajor), uint32(hdr.Devminor))
	case tar.TypeFifo:
		return b.FIFO(hdr.Name, attr)
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return fmt.Errorf("%q is of the unknown type %q (%w)", hdr.Name, hdr.Typeflag, ext4.ErrInput)
	}
}

func attrOf(hdr *tar.Header) (ext4.Attr, error) {
	if hdr.Uid < 0 || hdr.Uid > math.MaxUint32 || hdr.Gid < 0 || hdr.Gid > math.MaxUint32 {
		return ext4.Attr{}, fmt.Errorf("%q has the owner %d:%d (%w)", hdr.Name, hdr.Uid, hdr.Gid, ext4.ErrInput)
	}
	attr := ext4.Attr{Mode: uint16(hdr.Mode & 0o7777), UID: uint32(hdr.Uid), GID: uint32(hdr.Gid), MTime: hdr.ModTime}
	for key, value := range hdr.PAXRecords {
		if name, ok := strings.CutPrefix(key, paxXattr); ok {
			if attr.Xattrs == nil {
				attr.Xattrs = map[string]string{}
			}
			attr.Xattrs[name] = value
		}
	}
	return attr, nil
}

// buildError translates what can go wrong between a layer and the file.
func (s *Store) buildError(src *source, err error) error {
	switch {
	case isDiskFull(err):
		return s.diskError(src, err)
	case errors.Is(err, errRead):
		return drover.Errorf(drover.Unavailable, "image %q: fetching it failed: %w", src.image, err)
	case errors.Is(err, errDiffID):
		return drover.Errorf(drover.Invalid, "image %q is damaged: %w", src.image, err).WithHint("build or push the image again")
	case errors.As(err, new(*os.PathError)), errors.As(err, new(unix.Errno)):
		return drover.Errorf(drover.Internal, "image %q: cannot write its layer: %w", src.image, err)
	default:
		return drover.Errorf(drover.Invalid, "image %q cannot become a root disk: %w", src.image, err)
	}
}
