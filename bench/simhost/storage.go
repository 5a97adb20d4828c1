package simhost

import (
	"context"
	"strings"

	"drover"
	"drover/host"
)

// storage is a storage daemon that keeps layers without content. Methods that machines without volumes never need are those of a nil interface.
type storage struct {
	host.Storage
	sim *sim
}

func (s storage) CreateLayer(_ context.Context, spec host.LayerSpec) (drover.LayerStatus, error) {
	s.sim.mu.Lock()
	defer s.sim.mu.Unlock()
	l, ok := s.sim.layers[spec.ID]
	if !ok {
		l = drover.LayerStatus{ID: spec.ID, Disk: spec.Disk, State: drover.LayerReady, Size: spec.Size, Base: spec.Base, Cipher: spec.Cipher}
		s.sim.layers[spec.ID] = l
	}
	return l, nil
}

// change changes a layer that is there.
func (s storage) change(id drover.LayerID, fn func(l *drover.LayerStatus)) (drover.LayerStatus, error) {
	s.sim.mu.Lock()
	defer s.sim.mu.Unlock()
	l, ok := s.sim.layers[id]
	if !ok {
		return l, drover.Errorf(drover.NotFound, "no layer %q", id)
	}
	fn(&l)
	s.sim.layers[id] = l
	return l, nil
}

func (s storage) Open(_ context.Context, id drover.LayerID, epoch drover.Epoch) (host.Attachment, error) {
	_, err := s.change(id, func(l *drover.LayerStatus) { l.Writer = epoch })
	return host.Attachment{Socket: "/simulated", Export: string(id)}, err
}

func (s storage) Close(_ context.Context, id drover.LayerID) error {
	_, err := s.change(id, func(l *drover.LayerStatus) { l.Writer = 0 })
	return err
}

func (s storage) Fence(context.Context, drover.DiskID, drover.Epoch) error      { return nil }
func (s storage) SetKey(context.Context, drover.KeyID, []byte) error            { return nil }
func (s storage) Hydrate(context.Context, drover.LayerID, drover.Bytes) error   { return nil }
func (s storage) Limit(context.Context, drover.LayerID, drover.Limits) error    { return nil }
func (s storage) Settings(context.Context, drover.StorageSettings) error        { return nil }
func (s storage) Flush(context.Context, drover.LayerID) error                   { return nil }
func (s storage) Unprepare(context.Context, drover.LayerID, string) error       { return nil }
func (s storage) Unexport(context.Context, drover.LayerID, drover.HostID) error { return nil }
func (s storage) PauseHydration(context.Context, drover.LayerID, bool) error    { return nil }
func (s storage) Wipe(ctx context.Context, id drover.LayerID) error             { return s.Delete(ctx, id) }

func (s storage) Delete(_ context.Context, id drover.LayerID) error {
	s.sim.mu.Lock()
	defer s.sim.mu.Unlock()
	delete(s.sim.layers, id)
	return nil
}

func (s storage) Layer(_ context.Context, id drover.LayerID) (drover.LayerStatus, error) {
	return s.change(id, func(*drover.LayerStatus) {})
}

func (s storage) Layers(context.Context) (all []drover.LayerStatus, err error) {
	s.sim.mu.Lock()
	defer s.sim.mu.Unlock()
	for _, l := range s.sim.layers {
		all = append(all, l)
	}
	return all, nil
}

// images knows every image: its digest is made of its name.
type images struct{ sim *sim }

func (i images) Resolve(_ context.Context, image string) (drover.ResolvedImage, error) {
	digest := "sha256:" + (strings.Repeat("0", 64) + hexOf(image))[len(hexOf(image)):]
	return drover.ResolvedImage{ImageRef: drover.ImageRef{Repository: image, Digest: digest}}, nil
}

func (i images) Fetchable(context.Context, string, drover.ImageRef) error { return nil }

// hexOf writes at most 32 bytes of a name as hexadecimal digits.
func hexOf(name string) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for _, c := range []byte(name[:min(len(name), 32)]) {
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}

func (i images) Ensure(_ context.Context, _ string, ref drover.ImageRef, _ func(string)) (drover.ImageLayer, error) {
	id := drover.LayerID("img_" + strings.TrimPrefix(ref.Digest, "sha256:"))
	i.sim.mu.Lock()
	defer i.sim.mu.Unlock()
	i.sim.layers[id] = drover.LayerStatus{ID: id, State: drover.LayerImage, Size: drover.GiB}
	return drover.ImageLayer{Layer: id, Size: drover.GiB, Ref: ref, Run: drover.ImageConfig{Cmd: []string{"run"}}}, nil
}

// network makes links that are nothing.
type network struct{ sim *sim }

func (n network) Attach(_ context.Context, id drover.MachineID, _ string) (string, error) {
	n.sim.mu.Lock()
	defer n.sim.mu.Unlock()
	n.sim.taps[id] = true
	return "sim0", nil
}

// Police has nothing to close.
func (n network) Police(context.Context, drover.MachineID, string, drover.MachinePolicy) error {
	return nil
}

func (n network) Detach(_ context.Context, id drover.MachineID) error {
	n.sim.mu.Lock()
	defer n.sim.mu.Unlock()
	delete(n.sim.taps, id)
	return nil
}

func (n network) Attached(context.Context) (ids []drover.MachineID, err error) {
	n.sim.mu.Lock()
	defer n.sim.mu.Unlock()
	for id := range n.sim.taps {
		ids = append(ids, id)
	}
	return ids, nil
}
