package volume

import (
	"errors"
	"syscall"

	"drover"
)

// ioError translates an error of the host's file system.
func ioError(layer drover.LayerID, what string, err error) error {
	if err == nil {
		return nil
	}
	code := drover.Internal
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		code = drover.Exhausted
	}
	return drover.Errorf(code, "cannot %s layer %s: %w", what, layer, err)
}
