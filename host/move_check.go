package host

import (
	"context"
	"fmt"
	"time"

	"drover"
	"drover/boltstore"
)

const (
	// checkWait bounds one look of a check at something outside this process.
	checkWait = 5 * time.Second
	// clockMost is how far the clock of a target may be from the control side's.
	clockMost = 30 * time.Second
	// certificateLeast is how long this host's certificate must be valid from now on.
	certificateLeast = time.Hour
)

// Peers tells whether this host and another one can read from each other.
type Peers interface {
	// Reach connects to another host's storage daemon with both hosts' certificates. Unavailable or Denied.
	Reach(ctx context.Context, peer drover.HostID, address string) error
	// Certificate says until when this host's own certificate is valid, and who signed it. Precondition when it cannot be used.
	Certificate() (until time.Time, issuer string, err error)
}

// check gathers the findings of one request.
type check struct {
	a   *Agent
	req drover.MoveCheckRequest
	out []drover.MoveFinding
}

// add notes what was found. err is nil for what is as it should be.
func (c *check) add(name string, err error, format string, args ...any) {
	f := drover.MoveFinding{Check: name, Host: c.a.cfg.ID, OK: err == nil, Text: fmt.Sprintf(format, args...)}
	if e := drover.AsError(err); e != nil {
		f.Text, f.Hint = e.Text, e.Hint
	}
	c.out = append(c.out, f)
}

// moveCheck looks at everything that could stop a migration later, and changes nothing.
func (a *Agent) moveCheck(ctx context.Context, req drover.MoveCheckRequest) (drover.MoveChecked, error) {
	if req.Machine == "" || req.Source == req.Target || a.cfg.ID != req.Source && a.cfg.ID != req.Target {
		return drover.MoveChecked{}, drover.Errorf(drover.Invalid, "the check of a move of machine %q from host %q to host %q is not for host %q",
			req.Machine, req.Source, req.Target, a.cfg.ID).WithField("machine")
	}
	c := &check{a: a, req: req}
	var until time.Time
	if a.cfg.ID == req.Target {
		c.room()
		c.image(ctx)
		c.disks()
		c.keys(ctx)
	} else {
		c.owned()
	}
	if req.Undoes != "" && a.cfg.ID == req.Target {
		until = c.kept()
	}
	if req.Live {
		c.out = append(c.out, a.liveFindings(req)...)
	}
	c.peer(ctx)
	c.certificate()
	c.clock()
	return drover.MoveChecked{Findings: c.out, KeptUntil: until}, nil
}

// room checks what the target has left.
func (c *check) room() {
	c.a.capacity.Lock()
	have, err := c.a.room(c.req.Machine, mountsOf(c.req.Spec)...)
	c.a.capacity.Unlock()
	if err != nil {
		c.add("disk", err, "")
		return
	}
	size := c.req.Spec.Config.WithDefaults().Guest
	refused := have.refusals(c.a.cfg, size, c.req.Disk)
	find := func(field string) error {
		for _, e := range refused {
			if e.Field == field {
				return e
			}
		}
		return nil
	}
	c.add("memory", find("config.guest.memory_mb"), "%d MiB are needed, %d MiB are left", size.MemoryMB, have.memoryFree()/drover.MiB)
	c.add("cpus", find("config.guest.cpus"), "%d are needed, the host has %d", size.CPUs, c.a.cfg.CPUs)
	c.add("disk", find(""), "%d MiB are to be copied, %d MiB are left", c.req.Disk/drover.MiB, have.diskFree/drover.MiB)
}

// image checks that the image is in the pool, or can be fetched.
func (c *check) image(ctx context.Context) {
	ref := c.req.Spec.Image
	if names, ok := c.a.cfg.Images.(interface {
		LayerID(drover.ImageRef) drover.LayerID
	}); ok {
		if _, err := call(ctx, func(ctx context.Context) (drover.LayerStatus, error) {
			return c.a.cfg.Storage.Layer(ctx, names.LayerID(ref))
		}); err == nil {
			c.add("image", nil, "%s is there", ref.Digest)
			return
		}
	}
	ctx, cancel := context.WithTimeout(ctx, checkWait)
	defer cancel()
	if err := c.a.cfg.Images.Fetchable(ctx, c.req.Spec.Config.Image, ref); err != nil {
		c.add("image", drover.Errorf(drover.CodeOf(err), "the image is not on host %q, and cannot be fetched: %w", c.a.cfg.ID, err), "")
		return
	}
	c.add("image", nil, "%s can be fetched", c.req.Spec.Config.Image)
}

// disks checks that the target can have layers of the volumes' sizes and encryption.
func (c *check) disks() {
	var size, cipher error
	for _, v := range c.req.Volumes {
		if v.Size <= 0 || v.Size%drover.BlockSize != 0 {
			size = drover.Errorf(drover.Precondition, "volume %q has %d bytes, which is no multiple of the block size %d of host %q", v.ID, v.Size, drover.BlockSize, c.a.cfg.ID)
		}
		if err := v.Cipher.Check(); err != nil {
			cipher = fmt.Errorf("host %q cannot take volume %q: %w", c.a.cfg.ID, v.ID, err)
		}
	}
	c.add("block-size", size, "blocks of %d bytes", drover.BlockSize)
	c.add("cipher", cipher, "the encryption of %d volumes is known here", len(c.req.Volumes))
}

// keys checks that the keys of encrypted volumes can be had. They are not kept.
func (c *check) keys(ctx context.Context) {
	for _, v := range c.req.Volumes {
		if v.Cipher == nil {
			continue
		}
		if c.a.cfg.Keys == nil {
			c.add("key", drover.Errorf(drover.Precondition, "volume %q is encrypted, and host %q has no way to its key", v.ID, c.a.cfg.ID), "")
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, checkWait)
		secret, err := c.a.cfg.Keys.Key(ctx, v.Cipher.Key)
		cancel()
		clear(secret)
		if drover.Is(err, drover.Denied) || drover.Is(err, drover.Conflict) {
			c.add("key", nil, "the control side answers, and hands the key of volume %s out when the migration is under way", v.ID)
			continue
		}
		if err != nil {
			err = drover.Errorf(drover.CodeOf(err), "host %q cannot get the key of volume %q: %w", c.a.cfg.ID, v.ID, err)
		}
		c.add("key", err, "the key of volume %s can be had", v.ID)
	}
}

// owned checks that the source has the machine, and can give it away.
func (c *check) owned() {
	m, err := c.a.machine(c.req.Machine)
	if err != nil {
		c.add("machine", err, "")
		return
	}
	r := m.rec.Load()
	err = nil
	switch mv := r.Move; {
	case r.Desired == nil || r.Obs.Lost != nil:
		err = drover.Errorf(drover.Precondition, "machine %q is not owned by host %q", c.req.Machine, c.a.cfg.ID)
	case mv != nil && !mv.finished() && !(c.req.Undoes == mv.Migration && mv.adopted() && mv.Cloned):
		err = drover.Errorf(drover.Conflict, "machine %q is still part of migration %s on host %q", c.req.Machine, mv.Migration, c.a.cfg.ID).
			WithHint("wait until that one is done")
	default:
		err = c.a.cfg.Store.View(func(tx *boltstore.Tx) error { return checkFilled(tx, r) })
	}
	c.add("machine", err, "it is %s", r.Obs.Status.State)
}

// peer checks the way to the other host: the target reads from the source, and the source from the target should the move be taken back. One that
// is off is not named.
func (c *check) peer(ctx context.Context) {
	p := c.req.Peer
	switch {
	case p.ID == "":
		c.add("network", nil, "not looked at: the other host is off")
		return
	case c.a.cfg.Peers == nil:
		c.add("network", nil, "not looked at: this host has no way to try")
		return
	case p.StorageAddress == "":
		c.add("network", drover.Errorf(drover.Precondition, "host %q does not say where its storage daemon listens", p.ID), "")
		return
	}
	begun := c.a.now()
	ctx, cancel := context.WithTimeout(ctx, checkWait)
	defer cancel()
	err := c.a.cfg.Peers.Reach(ctx, p.ID, p.StorageAddress)
	name := "network"
	if err != nil {
		if drover.Is(err, drover.Denied) || drover.Is(err, drover.Conflict) {
			name = "credentials"
		}
		err = drover.Errorf(drover.CodeOf(err), "host %q does not reach the storage of host %q at %s: %w", c.a.cfg.ID, p.ID, p.StorageAddress, err).
			WithHint("see whether the storage daemon of host %s runs, and that nothing between the hosts keeps them apart", p.ID)
	}
	c.add(name, err, "the storage of host %s at %s answers in %v", p.ID, p.StorageAddress, c.a.now().Sub(begun).Round(time.Millisecond))
}

// certificate checks this host's own.
func (c *check) certificate() {
	if c.a.cfg.Peers == nil {
		return
	}
	until, issuer, err := c.a.cfg.Peers.Certificate()
	if left := until.Sub(c.a.now()); err == nil && left < certificateLeast {
		err = drover.Errorf(drover.Precondition, "the certificate of host %q is valid until %s only", c.a.cfg.ID, until.UTC().Format(time.RFC3339)).
			WithHint("issue a new one; it is used without a restart")
	}
	c.add("credentials", err, "the host's certificate is valid until %s, signed by %s", until.UTC().Format("2006-01-02"), issuer)
}

// clock compares this host's clock with the control side's. That of a source is only told: one may be just what a machine is moved away from.
func (c *check) clock() {
	if c.req.At.IsZero() {
		return
	}
	off := c.a.now().Sub(c.req.At)
	var err error
	if off.Abs() > clockMost && c.a.cfg.ID == c.req.Target {
		err = drover.Errorf(drover.Precondition, "the clock of host %q is %v away from that of the control host", c.a.cfg.ID, off.Round(time.Second)).
			WithHint("see whether the host's time service runs")
	}
	c.add("clock", err, "%v away from that of the control host", off.Round(time.Millisecond))
}
