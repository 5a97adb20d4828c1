package fleet

import (
	"context"
	"fmt"

	"drover"
)

// part is one of the things that a new machine needs for itself before it has a record. The fault point is behind its write.
type part struct {
	point string
	take  func() error
}

// together takes all parts at once, and returns the first error in their order. None is given up because of another: whoever takes back what was
// made has to know that nothing is under way any more.
func (f *Fleet) together(parts []part) error {
	errs := make([]error, len(parts))
	done := make(chan int, len(parts))
	for i, p := range parts {
		go func() {
			errs[i] = p.take()
			done <- i
		}()
	}
	for range parts {
		if i := <-done; errs[i] == nil {
			f.hit(parts[i].point)
		}
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// claimed is what was taken for a machine that has no record yet.
type claimed struct {
	placement drover.Placement
	lease     drover.MachineLease
}

// claimAll takes what the machine needs, under its ID, and completes the record with it. Each part is a write of its own that depends on no other, so
// that all are on their way at once; after a crash any of them may be there, and the repair clears them away.
func (f *Fleet) claimAll(ctx context.Context, req CreateMachine, app drover.App, m *drover.Machine, host drover.HostID) (got claimed, err error) {
	var address string
	var secrets secretsVersion
	parts := []part{
		{"fleet.make.name.after", func() error { return f.claimName(ctx, *m) }},
		{"fleet.make.volumes.after", func() error {
			for i, mount := range m.Config.Mounts {
				if err := f.claimVolume(ctx, *m, mount.Volume, host, fmt.Sprintf("config.mounts[%d].volume", i)); err != nil {
					return err
				}
			}
			return nil
		}},
		{"fleet.make.number.after", func() (err error) { address, err = f.newAddress(ctx, app); return err }},
		{"fleet.make.placement.after", func() error {
			p := drover.Placement{Machine: m.ID, Host: host}
			rev, err := f.state.placements.create(ctx, string(m.ID), p)
			got.placement, got.placement.Epoch = p, drover.Epoch(rev)
			return err
		}},
		{"fleet.make.secrets.after", func() (err error) { secrets, err = f.secretsFor(ctx, req.App, req.SecretsWish); return err }},
	}
	if req.LeaseTTL > 0 {
		parts = append(parts, part{"fleet.make.lease.after", func() (err error) {
			got.lease, err = f.takeLease(ctx, LeaseMachine{Machine: req.id, TTL: req.LeaseTTL, Owner: req.Owner})
			return err
		}})
	}
	if err := f.together(parts); err != nil {
		return claimed{}, err
	}
	m.Address = address
	secrets.give(m)
	return got, nil
}

// claimName takes the machine's name in its app, and makes sure then that the app stays.
func (f *Fleet) claimName(ctx context.Context, m drover.Machine) error {
	key := nameClaim(m.App, m.Name)
	if _, err := f.state.claims.create(ctx, key, claim{Machine: m.ID, At: f.now()}); drover.Is(err, drover.Exists) {
		other, _, gerr := f.state.claims.get(ctx, key)
		if gerr != nil {
			return gerr
		}
		return nameTaken(m.App, m.Name, other.Machine)
	} else if err != nil {
		return err
	}
	return f.stays(ctx, m.App)
}

func (f *Fleet) claimVolume(ctx context.Context, m drover.Machine, id drover.VolumeID, host drover.HostID, field string) error {
	for range casTries {
		v, rev, err := f.state.volumes.get(ctx, string(id))
		if drover.Is(err, drover.NotFound) {
			return drover.Errorf(drover.NotFound, "%s: volume %q was destroyed meanwhile", field, id).WithField(field)
		}
		if err != nil {
			return err
		}
		if err := attachable(v, field); err != nil {
			return err
		}
		if v.Host != host {
			return drover.Errorf(drover.Conflict, "%s: volume %q went to host %q meanwhile", field, id, v.Host).WithField(field)
		}
		v.Machine = m.ID
		if _, err = f.state.volumes.update(ctx, string(id), v, rev); !drover.Is(err, drover.Conflict) {
			return err
		}
	}
	return tooBusy("volume", string(id))
}
