package network

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"time"

	"drover"
	"drover/mesh"
)

// A rotation gives this host another key. What is durable is in identity.json, and says how far it is:
//
//	made      the next key exists, nobody knows of it
//	claimed   the fleet knows that it is this host's; from here on others are told of it, and reach this host by either
//	promoted  it is the key of this host; the old one is gone: the point of no return
//	canceled  in place of that: nobody is told of the next key any more; who sends by it is still heard
//	dropped   nobody sends by it: it is gone
//
// A process that is killed goes on from what it finds there. Peers say themselves, over the mesh, that they send by the next key.
const (
	// rotateEvery is how often a rotation looks at what its peers say.
	rotateEvery = 500 * time.Millisecond
	// settleTime is how long all must be confirmed: what was sent before by the old key has come then.
	settleTime = 3 * time.Second
	// silentAfter is how long a rotation waits for hosts from which nothing comes. They learn the key from the fleet.
	silentAfter = 30 * time.Second
)

// ends are what a rotation needs of the mesh: meshEnds.
type ends interface {
	// BeginKey lets other hosts reach this one by another key too. It may be repeated.
	BeginKey(next mesh.PrivateKey) error
	// Unconfirmed lists the hosts that do not send by that key.
	Unconfirmed(now time.Time) []drover.HostID
	// Promote makes that key the only one.
	Promote(ctx context.Context, people bool) error
	// Withdraw lets this host send nothing by that key. It may be repeated.
	Withdraw(now time.Time)
	// SendsByNext lists the hosts that may still send by it.
	SendsByNext(now time.Time) []drover.HostID
	// DropNext forgets it.
	DropNext()
	// Links tells how the links to all hosts are.
	Links() []mesh.Link
}

// meshEnds are a device and what asks its peers.
type meshEnds struct {
	*mesh.Device
	*mesh.Prober
}

var _ ends = meshEnds{}

// Rotate begins a rotation, or tells of the one that is under way. It is durable when Rotate returns.
func (d *Daemon) Rotate(by string, people bool) (drover.MeshKey, error) {
	d.keys.Lock()
	defer d.keys.Unlock()
	if d.id.file.Allotted.Number == 0 {
		return drover.MeshKey{}, drover.Errorf(drover.Precondition, "this host has not joined the fleet: it gets no other key")
	}
	switch r := d.id.file.Rotation; {
	case r.Running() && r.Canceled():
		return drover.MeshKey{}, drover.Errorf(drover.Precondition, "this host gets no other key now: the next one of rotation %s, which %s canceled, is still being taken back, which takes a quarter of a minute", r.ID, r.CanceledBy)
	case !r.Running():
		if err := d.id.makeNext(by, people, d.now()); err != nil {
			return drover.MeshKey{}, err
		}
		d.cfg.Log.Info("this host gets another key", "op", d.id.file.Rotation.ID, "by", by)
		d.cfg.Faults.Hit(pointKeyMade)
	}
	return d.keyLocked(), nil
}

// keyLocked tells of the key.
func (d *Daemon) keyLocked() drover.MeshKey {
	f := d.id.file
	k := drover.MeshKey{PublicKey: d.id.key.Public(), Number: f.KeyNumber, Since: f.KeySince, PeopleKey: d.id.peoplePublic(), WaitsFor: d.waits}
	if f.Rotation != nil {
		r := *f.Rotation
		k.Rotation = &r
	}
	k.NextAt, _ = d.scheduleLocked()
	return k
}

// rotateLoop drives rotations until ctx ends. An error is one that a new process may mend.
func (d *Daemon) rotateLoop(ctx context.Context) error {
	var steady time.Time
	for {
		pause(ctx, rotateEvery)
		if ctx.Err() != nil {
			return nil
		}
		if err := d.beginDue(); err != nil {
			d.cfg.Log.Warn("this host cannot make another key", "err", err)
			continue
		}
		var err error
		if steady, err = d.rotateStep(ctx, steady); err != nil {
			return err
		}
	}
}

// rotateStep does what is to be done next. steady is since when all peers are confirmed.
func (d *Daemon) rotateStep(ctx context.Context, steady time.Time) (time.Time, error) {
	d.keys.Lock()
	f := d.id.file
	d.keys.Unlock()
	switch {
	case !f.Rotation.Running():
		return time.Time{}, d.record(ctx)
	case f.Rotation.Canceled():
		return d.withdrawStep(ctx, steady)
	case !f.Claimed:
		if err := d.claim(ctx); err != nil {
			d.cfg.Log.Warn("the next key is not known to the fleet yet", "op", f.Rotation.ID, "err", err)
			pause(ctx, retryEvery)
			return time.Time{}, nil
		}
		d.cfg.Faults.Hit(pointKeyClaimed)
		return time.Time{}, d.beginNext()
	}
	waits, silent := d.unconfirmed(f.Rotation.StartedAt)
	d.keys.Lock()
	d.waits = waits
	d.keys.Unlock()
	switch {
	case len(waits) > 0 || !d.feed.knows("hosts"):
		return time.Time{}, nil
	case steady.IsZero():
		return d.now(), nil
	case d.now().Sub(steady) < settleTime:
		return steady, nil
	}
	return time.Time{}, d.promote(ctx, silent)
}

// unconfirmed lists the hosts that the rotation waits for, and those that it does not, for they are silent.
func (d *Daemon) unconfirmed(since time.Time) (waits, silent []drover.HostID) {
	dead := map[drover.HostID]bool{}
	for _, l := range d.ends.Links() {
		dead[l.Host] = l.State == mesh.LinkFromDead
	}
	for _, h := range d.ends.Unconfirmed(d.now()) {
		if dead[h] && d.now().Sub(since) > silentAfter {
			silent = append(silent, h)
		} else {
			waits = append(waits, h)
		}
	}
	return waits, silent
}

// beginNext lets the host be reached by the next key too, and publishes it.
func (d *Daemon) beginNext() error {
	d.keys.Lock()
	next := d.id.next
	d.keys.Unlock()
	if err := d.ends.BeginKey(next); err != nil {
		return err
	}
	d.publish()
	return nil
}

// promote makes the next key the only one.
func (d *Daemon) promote(ctx context.Context, silent []drover.HostID) error {
	d.keys.Lock()
	if d.id.file.Rotation.Canceled() { // just now
		d.keys.Unlock()
		return nil
	}
	people := d.id.file.Rotation.People
	err := d.id.promote(silent, d.now())
	d.waits = nil
	f := d.id.file
	d.keys.Unlock()
	if err != nil {
		return err
	}
	d.cfg.Faults.Hit(pointKeyPromoted)
	d.publish()
	if err := d.ends.Promote(ctx, people); err != nil {
		return err
	}
	d.cfg.Log.Info("this host has another key", "op", f.Rotation.ID, "number", f.KeyNumber, "silent", silent)
	return d.record(ctx)
}

// record tells the fleet of a rotation that has ended, again until it knows.
func (d *Daemon) record(ctx context.Context) error {
	d.keys.Lock()
	told := d.id.told()
	d.keys.Unlock()
	if told {
		return nil
	}
	err := d.claim(ctx)
	if drover.Is(err, drover.Conflict) {
		return err
	}
	if err != nil && ctx.Err() == nil {
		d.cfg.Log.Warn("the fleet does not know of this host's new key yet", "err", err)
		pause(ctx, retryEvery)
	}
	return nil
}

// claim proves that name and keys are this host's alone.
func (d *Daemon) claim(ctx context.Context) error {
	d.keys.Lock()
	want := d.id.identity(d.cfg.Host, d.cfg.Listen.Addr().String())
	want.Boot = d.boot.ID
	d.keys.Unlock()
	ctx, cancel := context.WithTimeout(ctx, claimWait)
	defer cancel()
	got, err := d.cfg.Bus.ClaimIdentity(ctx, want)
	if err != nil {
		return err
	}
	d.keys.Lock()
	defer d.keys.Unlock()
	if err := d.id.allotted(got); err != nil {
		return err
	}
	return d.boot.setBegun(d.cfg.RunDir, true)
}

// publish makes what others are told of this host what it is now.
func (d *Daemon) publish() {
	d.keys.Lock()
	m := d.id.mesh()
	d.keys.Unlock()
	m.Endpoint, m.Public, m.MTU = d.cfg.Listen.String(), d.cfg.Public, d.cfg.MTU
	d.mu.Lock()
	d.mesh = &m
	d.mu.Unlock()
}

// makeNext makes up the key that is to be the next.
func (id *identity) makeNext(by string, people bool, now time.Time) error {
	next, err := mesh.NewPrivateKey()
	if err != nil {
		return err
	}
	b := make([]byte, 8)
	rand.Read(b) // never fails: crypto/rand aborts the process instead
	file := id.file
	file.NextKey, file.Claimed = next.Reveal(), false
	file.Rotation = &drover.KeyRotation{ID: hex.EncodeToString(b), By: by, People: people, StartedAt: now.UTC()}
	if err := id.replace(file); err != nil {
		return err
	}
	id.next = next
	return nil
}

// promote makes the next key the host's. What people know the host by stays, unless that is to change.
func (id *identity) promote(silent []drover.HostID, now time.Time) error {
	file := id.file
	switch {
	case file.Rotation.People:
		file.PeopleKey = ""
	case file.PeopleKey == "":
		file.PeopleKey = file.PrivateKey
	}
	done := *file.Rotation
	done.EndedAt, done.Silent = now.UTC(), slices.Clone(silent)
	file.PrivateKey, file.NextKey, file.KeyNumber, file.KeySince, file.Claimed, file.Rotation = file.NextKey, "", file.KeyNumber+1, now.UTC(), false, &done
	if err := id.replace(file); err != nil {
		return err
	}
	return id.parse()
}
