package oci

import (
	"errors"

	"golang.org/x/sys/unix"

	"drover"
)

func isDiskFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

func codeOfDisk(err error) drover.Code {
	if isDiskFull(err) {
		return drover.Exhausted
	}
	return drover.Internal
}

// free returns the space that is left for images.
func (s *Store) free() (drover.Bytes, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.cfg.WorkDir, &st); err != nil {
		return 0, err
	}
	return drover.Bytes(st.Bavail) * drover.Bytes(st.Bsize), nil
}

// checkSpace refuses at once what cannot fit: an image is never smaller than its compressed layers in any case of practice.
func (s *Store) checkSpace(src *source) error {
	free, err := s.free()
	if err != nil {
		return s.diskError(src, err)
	}
	if need := drover.Bytes(src.size()); need > free {
		return drover.Errorf(drover.Exhausted, "image %q needs more than the %s of its layers, %s has %s free", src.image, mib(need),
			s.cfg.WorkDir, mib(free)).WithHint("free space on this host's disk, or let another host run the machine")
	}
	return nil
}

// diskError translates an error of the work directory, with sizes where the disk is full.
func (s *Store) diskError(src *source, err error) error {
	if !isDiskFull(err) {
		return drover.Errorf(drover.Internal, "image %q: cannot write its layer: %w", src.image, err)
	}
	left := "an unknown amount"
	if free, statErr := s.free(); statErr == nil {
		left = mib(free)
	}
	return drover.Errorf(drover.Exhausted, "image %q (%s as layers) does not fit on the disk: %s has %s left: %w", src.image,
		mib(drover.Bytes(src.size())), s.cfg.WorkDir, left, err).
		WithHint("free space on this host's disk, or let another host run the machine")
}
