package volume

import (
	"sync/atomic"

	"drover"
)

// label is how messages call a content: by the layer that has it now.
type label struct {
	id atomic.Pointer[drover.LayerID]
}

func newLabel(id drover.LayerID) *label {
	l := &label{}
	l.set(id)
	return l
}

func (l *label) set(id drover.LayerID) { l.id.Store(&id) }
func (l *label) String() string        { return string(*l.id.Load()) }

// ioError translates an error of the host's file system. layer is a layer's ID, or the label of a content.
func ioError[L drover.LayerID | *label](layer L, what string, err error) error {
	if err == nil {
		return nil
	}
	code := drover.Internal
	if noRoom(err) {
		code = drover.Exhausted
	}
	return drover.Errorf(code, "cannot %s layer %v: %w", what, layer, err)
}
