package network

import (
	"context"
	"time"

	"drover"
)

// Cancel takes back the key that this host is about to have; when Cancel returns that is durable. Precondition when there is none, or when it is the host's key already.
func (d *Daemon) Cancel(by string) (drover.MeshKey, error) {
	d.keys.Lock()
	defer d.keys.Unlock()
	r := d.id.file.Rotation
	switch {
	case r == nil:
		return drover.MeshKey{}, drover.Errorf(drover.Precondition, "this host is about to have no other key: there is nothing to cancel")
	case r.Canceled(): // asked again
	case !r.Running():
		return drover.MeshKey{}, drover.Errorf(drover.Precondition, "rotation %s has ended at %s: the key that it was for is the host's, and the old one is gone", r.ID, r.EndedAt.Format(time.RFC3339))
	default:
		if err := d.id.cancel(by, d.now()); err != nil {
			return drover.MeshKey{}, err
		}
		d.cfg.Log.Info("this host keeps the key that it has", "op", r.ID, "by", by)
		d.cfg.Faults.Hit(pointKeyCanceled)
	}
	return d.keyLocked(), nil
}

// withdrawStep does what is to be done next so that nobody knows of the next key. steady is since when nobody sends by it.
func (d *Daemon) withdrawStep(ctx context.Context, steady time.Time) (time.Time, error) {
	d.ends.Withdraw(d.now())
	d.publish()
	sends := d.ends.SendsByNext(d.now())
	d.keys.Lock()
	d.waits = sends
	d.keys.Unlock()
	switch {
	case len(sends) > 0:
		return time.Time{}, nil
	case steady.IsZero():
		return d.now(), nil
	case d.now().Sub(steady) < settleTime:
		return steady, nil
	}
	d.keys.Lock()
	err := d.id.drop(d.now())
	id := d.id.file.Rotation.ID
	d.keys.Unlock()
	if err != nil {
		return time.Time{}, err
	}
	d.cfg.Faults.Hit(pointKeyDropped)
	d.ends.DropNext()
	d.cfg.Log.Info("the next key of this host is gone", "op", id)
	return time.Time{}, d.record(ctx)
}

// cancel stores that the next key is not to be the host's.
func (id *identity) cancel(by string, now time.Time) error {
	file, r := id.file, *id.file.Rotation
	r.CanceledAt, r.CanceledBy = now.UTC(), by
	file.Rotation = &r
	return id.replace(file)
}

// drop forgets the next key.
func (id *identity) drop(now time.Time) error {
	file, r := id.file, *id.file.Rotation
	r.EndedAt = now.UTC()
	file.NextKey, file.Claimed, file.Rotation = "", false, &r
	if err := id.replace(file); err != nil {
		return err
	}
	return id.parse()
}
