package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/internal/fault"
	"drover/internal/netdev"
	"drover/mesh"
	"drover/route"
)

const (
	// claimWait bounds one attempt to join, retryEvery is how long to wait before the next of anything that failed.
	claimWait  = 10 * time.Second
	retryEvery = 2 * time.Second
	// firstRetry is how long a host that joins waits at first: the bus is about to come, more often than not.
	firstRetry = 100 * time.Millisecond
	// aloneAfter is how long a host that boots asks in vain before it begins by itself.
	aloneAfter = 4 * time.Second
	// saveEvery is how often the table is stored, if it has changed.
	saveEvery = 5 * time.Second
	// followed is how many of the fleet's lists are followed.
	followed = 6
)

// Bus is what the network needs of the fleet (natsbus.HostBus).
type Bus interface {
	// ClaimIdentity joins the fleet. Conflict when name or key are another host's.
	ClaimIdentity(ctx context.Context, want drover.HostIdentity) (drover.HostIdentity, error)
	// The others call fn with every record, then with an empty ID, then with every change of one, nil when it is gone, until ctx ends. stored is when
	// the store took the record in.
	FollowMoves(ctx context.Context, fn func(id drover.MachineID, p *drover.Placement, stored time.Time) error) error
	FollowMachines(ctx context.Context, fn func(drover.MachineID, *drover.Machine) error) error
	FollowStatuses(ctx context.Context, fn func(drover.MachineID, *drover.MachineStatus) error) error
	FollowHosts(ctx context.Context, fn func(drover.HostID, *drover.HostInfo) error) error
	FollowPeers(ctx context.Context, fn func(string, *drover.WireGuardPeer) error) error
	// ServeBoot answers whoever proves that this host is the only one of its name.
	ServeBoot(ctx context.Context, boot string) error
	FollowIdentities(ctx context.Context, fn func(drover.HostID, *drover.HostIdentity) error) error
}

// Config is what a Daemon is made of; all fields are required but Faults.
type Config struct {
	Host drover.HostID
	// Dir is the directory of what is kept, RunDir has the control socket.
	Dir, RunDir string
	// Listen is where WireGuard listens, on the underlay.
	Listen netip.AddrPort
	// Public is where people's peers reach it; empty when that is Listen.
	Public string
	// MTU is the largest packet of a machine.
	MTU int
	// KeyEvery is how often the host gets another key by itself; 0 for never.
	KeyEvery time.Duration
	Bus      Bus
	Log      *slog.Logger
	Faults   *fault.Points
}

// Daemon is the network of one host. Make it with New, run it with Run.
type Daemon struct {
	cfg  Config
	feed *feed
	now  func() time.Time

	// keys guards id, boot and waits. No lock is taken under it.
	keys sync.Mutex
	id   *identity
	boot bootRecord
	// waits are the hosts that a rotation waits for.
	waits []drover.HostID
	// keyWait is until when a rotation that is due waits; zero when none is. It is rotateLoop's.
	keyWait time.Time

	mu      sync.Mutex
	mesh    *drover.HostMesh
	prober  *mesh.Prober
	device  *mesh.Device
	ends    ends
	problem string
	// taken: the problem is that this host's name or key is another's.
	taken bool
}

// New reads what the last process has left, and starts nothing.
func New(cfg Config) (*Daemon, error) {
	id, err := loadIdentity(cfg.Dir, cfg.Host)
	if err != nil {
		return nil, err
	}
	boot, err := loadBoot(cfg.RunDir)
	if err != nil {
		return nil, err
	}
	d := &Daemon{cfg: cfg, id: id, boot: boot, now: time.Now, feed: newFeed(cfg.Host, cfg.Dir, time.Now), problem: "this host has not joined the fleet yet"}
	if err := d.feed.load(); err != nil {
		cfg.Log.Warn("the table of an earlier process is not used", "err", err)
	}
	return d, nil
}

// SocketPath is where a host's network answers, in its run directory.
func SocketPath(runDir string) string { return filepath.Join(runDir, "mesh.sock") }

// Table is what the network knows of machines and hosts, for those who answer questions about them.
func (d *Daemon) Table() *route.Table { return d.feed.table }

// RTT tells how far another host is; 0 when it is not known.
func (d *Daemon) RTT(host drover.HostID) time.Duration {
	d.mu.Lock()
	prober := d.prober
	d.mu.Unlock()
	if prober == nil {
		return 0
	}
	return prober.RTT(host)
}

// Run works until ctx ends. joined is called once, when the host has its addresses; it runs until its context ends. An error of Run is one that a
// new start may mend.
func (d *Daemon) Run(ctx context.Context, joined func(ctx context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.serve(ctx) })
	group.Go(func() error {
		d.feed.follow(ctx, d.cfg.Bus, func() { d.cfg.Faults.Hit(pointFeed) }, func(list string, err error) {
			d.cfg.Log.Warn("cannot follow the fleet", "list", list, "err", err)
		})
		return nil
	})
	group.Go(func() error { d.saveLoop(ctx); return nil })
	group.Go(func() error {
		if !d.hasBegun() && !d.join(ctx) {
			return nil
		}
		if err := d.open(); err != nil {
			d.setProblem(drover.Errorf(drover.Unavailable, "%w", err))
			return err
		}
		group.Go(func() error { return d.prober.Run(ctx) })
		group.Go(func() error { return joined(ctx) })
		group.Go(func() error {
			if err := d.confirm(ctx); err != nil {
				return err
			}
			// Not before: a copy that began by itself must not be what answers when it is asked whether another one runs.
			group.Go(func() error { return d.cfg.Bus.ServeBoot(ctx, d.boot.ID) })
			return d.rotateLoop(ctx)
		})
		return d.watch(ctx)
	})
	return group.Wait()
}

// number is the host's; 0 before it has joined.
func (d *Daemon) number() uint64 {
	d.keys.Lock()
	defer d.keys.Unlock()
	return d.id.file.Allotted.Number
}

// hasBegun reports whether this boot of the host may be taken for it without asking: the fleet has let it in, or nobody could be asked. Another host may have its data
// directory, and run.
func (d *Daemon) hasBegun() bool {
	d.keys.Lock()
	defer d.keys.Unlock()
	return d.id.file.Allotted.Number != 0 && d.boot.Begun
}

// join asks for a name until it is given; false when ctx ended before. A host that has had one goes by that when nobody answers for a time: what it runs does not depend
// on the control side. It is asked about again as soon as somebody is there (confirm).
func (d *Daemon) join(ctx context.Context) bool {
	begun := d.now()
	for wait := firstRetry; ctx.Err() == nil; wait = min(2*wait, retryEvery) {
		err := d.claim(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			break
		}
		if d.number() != 0 && !drover.Is(err, drover.Conflict) && d.now().Sub(begun) >= aloneAfter {
			d.cfg.Log.Warn("nobody can be asked whether this host is the only one of its name: it begins as what it was", "err", err)
			d.keys.Lock()
			err = d.boot.setBegun(d.cfg.RunDir, true)
			d.keys.Unlock()
			if err == nil {
				return true
			}
		}
		d.setProblem(err)
		d.cfg.Log.Warn("this host cannot join the fleet", "err", err, "hint", drover.AsError(err).Hint)
		pause(ctx, wait)
	}
	return false
}

// confirm asks once more whether name and key are still this host's: it may have been away for long, and its name given to another.
func (d *Daemon) confirm(ctx context.Context) error {
	for ctx.Err() == nil {
		before := d.number()
		err := d.claim(ctx)
		switch {
		case drover.Is(err, drover.Conflict):
			d.device.Close()
			return errors.Join(err, d.refused(err))
		case err == nil && d.number() != before:
			return drover.Errorf(drover.Conflict, "this host has joined anew and has another number: its network starts again")
		case err == nil:
			return nil
		}
		pause(ctx, retryEvery)
	}
	return nil
}

// refused lets no process of this boot begin before the fleet has let it in.
func (d *Daemon) refused(err error) error {
	d.setProblem(err)
	d.keys.Lock()
	defer d.keys.Unlock()
	return d.boot.setBegun(d.cfg.RunDir, false)
}

func (d *Daemon) setProblem(err error) {
	d.mu.Lock()
	d.problem, d.taken = err.Error(), drover.Is(err, drover.Conflict)
	d.mu.Unlock()
}

// open starts the mesh.
func (d *Daemon) open() error {
	d.keys.Lock()
	id := *d.id
	d.keys.Unlock()
	allotted := id.file.Allotted
	address, err := netip.ParseAddr(allotted.PrivateAddress)
	if err != nil {
		return drover.Errorf(drover.Internal, "this host was allotted the address %q, which is none", allotted.PrivateAddress)
	}
	device, err := mesh.Open(mesh.Config{Name: netdev.MeshDevice, Key: id.key, KeyNumber: id.file.KeyNumber, PeopleKey: id.people, Address: address, Port: d.cfg.Listen.Port(), MTU: d.cfg.MTU, Log: d.cfg.Log},
		d.feed.routes)
	if err != nil {
		return err
	}
	if id.file.Claimed { // a rotation is under way
		if err := device.BeginKey(id.next); err != nil {
			device.Close()
			return err
		}
		if id.file.Rotation.Canceled() {
			device.Withdraw(d.now())
		}
	}
	if err := netdev.AddLocal(drover.ResolverAddress()); err != nil {
		device.Close()
		return err
	}
	d.feed.start(device)
	d.mu.Lock()
	d.device, d.prober, d.problem = device, mesh.NewProber(d.cfg.Host, device, d.cfg.Log), ""
	d.ends = meshEnds{device, d.prober}
	d.taken = false
	d.mu.Unlock()
	d.publish()
	d.cfg.Log.Info("the mesh is open", "address", allotted.PrivateAddress, "listen", d.cfg.Listen.String(), "mtu", d.cfg.MTU, "routes", d.Status().Routes)
	return nil
}

// watch ends with an error when the device is gone: a new process makes it anew.
func (d *Daemon) watch(ctx context.Context) error {
	defer d.device.Close()
	select {
	case <-ctx.Done():
		return nil
	case <-d.device.Done():
		return drover.Errorf(drover.Unavailable, "the device %s of the mesh is gone", netdev.MeshDevice)
	}
}

func (d *Daemon) saveLoop(ctx context.Context) {
	for {
		pause(ctx, saveEvery)
		if err := errors.Join(d.feed.look(), d.feed.save()); err != nil {
			d.cfg.Log.Warn("the table is not stored: a start without the bus would go by an older one", "err", err)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// Status says how the network is.
func (d *Daemon) Status() drover.MeshStatus {
	d.mu.Lock()
	s := drover.MeshStatus{Mesh: d.mesh, Problem: d.problem, NameTaken: d.taken}
	prober := d.prober
	d.mu.Unlock()
	if s.Mesh != nil {
		d.keys.Lock()
		key := d.keyLocked()
		d.keys.Unlock()
		s.Key = &key
	}
	count, digest := d.feed.routes.Digest()
	if s.Mesh != nil {
		s.RoutesDigest = digest.String()
	}
	s.Routes, s.SyncedAt, s.News = count, d.feed.syncedAt(), d.feed.news()
	s.DroppedUnknown, s.DroppedMalformed = d.feed.routes.Dropped()
	if refused, err := netdev.Refusals(); err == nil { // no machine was ever started here: there are no rules yet
		s.Refused = refused
	}
	if prober != nil {
		for _, l := range prober.Links() {
			s.Links = append(s.Links, drover.MeshLink{Host: l.Host, State: string(l.State), Text: l.Text, Bad: l.State.Bad(), RTT: l.RTT})
		}
	}
	d.feed.mu.Lock()
	defer d.feed.mu.Unlock()
	for host, trouble := range d.feed.troubles {
		s.Problem = cmp.Or(s.Problem, fmt.Sprintf("host %s is no peer: %s", host, trouble))
	}
	for host, why := range d.feed.impostors {
		s.Problem = cmp.Or(s.Problem, fmt.Sprintf("host %s is not believed: %s", host, why))
	}
	for _, trouble := range d.feed.refused {
		s.Problem = cmp.Or(s.Problem, trouble)
	}
	return s
}

// Peers tells what was seen of the people's peers that connect to this host.
func (d *Daemon) Peers() (answer drover.MeshPeersAnswer, err error) {
	d.mu.Lock()
	device := d.device
	d.mu.Unlock()
	if device == nil {
		return answer, nil
	}
	users, err := device.Users()
	for _, u := range users {
		answer.Peers = append(answer.Peers, drover.MeshPeer{PublicKey: u.PublicKey, HandshakeAt: u.HandshakeAt, Received: u.Received, Sent: u.Sent})
	}
	return answer, err
}

// Routes lists the table that packets follow, after an address.
func (d *Daemon) Routes(after netip.Addr) drover.MeshRoutesAnswer {
	all := d.feed.routes.All()
	addresses := make([]netip.Addr, 0, len(all))
	for a := range all {
		if !after.IsValid() || after.Less(a) {
			addresses = append(addresses, a)
		}
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	answer := drover.MeshRoutesAnswer{More: len(addresses) > drover.MaxMeshRoutes}
	for _, a := range addresses[:min(len(addresses), drover.MaxMeshRoutes)] {
		answer.Routes = append(answer.Routes, drover.MeshRoute{Machine: a.String(), Host: all[a].String()})
	}
	return answer
}

// pause waits, or less when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
