package natsbus

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"drover"
)

// infoEvery is how often a host's whole description is stored when nothing but its use of memory, CPUs and disk changes. Between, it only says
// that it lives, which costs the store nothing.
const infoEvery = time.Minute

// maxStatuses bounds how many machines it is remembered of which status was written last; when there are more, all start anew.
const maxStatuses = 10_000

// statusTries bounds how often a status is written again because another write came between.
const statusTries = 10

// HostBus is the bus as the agent of one host uses it. Safe for concurrent use.
type HostBus struct {
	conn *Conn
	host drover.HostID

	placements lazyBucket[drover.Placement]
	machines   lazyBucket[drover.Machine]
	migrations lazyBucket[drover.Migration]
	status     lazyBucket[drover.MachineStatus]
	hosts      lazyBucket[drover.HostInfo]
	peers      lazyBucket[drover.WireGuardPeer]
	policies   lazyBucket[drover.AppPolicies]
	identities lazyBucket[drover.HostIdentity]

	mu       sync.Mutex
	stored   drover.HostInfo
	storedAt time.Time
	// statuses has the revision and the epoch of the status that this host wrote last of each machine.
	statuses map[drover.MachineID]written
}

type written struct {
	rev   uint64
	epoch drover.Epoch
}

// NewHostBus returns the bus for a host. The buckets are looked up when they are first needed, so that an agent can start
// before the control side has made them.
func NewHostBus(conn *Conn, host drover.HostID) *HostBus {
	return &HostBus{
		conn: conn, host: host, statuses: map[drover.MachineID]written{},
		placements: lazyBucket[drover.Placement]{name: BucketPlacements},
		machines:   lazyBucket[drover.Machine]{name: BucketMachines},
		migrations: lazyBucket[drover.Migration]{name: BucketMigrations},
		status:     lazyBucket[drover.MachineStatus]{name: BucketStatus},
		hosts:      lazyBucket[drover.HostInfo]{name: BucketHosts},
		peers:      lazyBucket[drover.WireGuardPeer]{name: BucketWireGuard},
		policies:   lazyBucket[drover.AppPolicies]{name: BucketPolicies},
		identities: lazyBucket[drover.HostIdentity]{name: BucketIdentities},
	}
}

// lazyBucket opens a bucket that the control side makes, when it is first used.
type lazyBucket[T any] struct {
	name string
	mu   sync.Mutex
	b    *Bucket[T]
}

func (l *lazyBucket[T]) get(ctx context.Context, conn *Conn) (*Bucket[T], error) {
	l.mu.Lock()
	b := l.b
	l.mu.Unlock()
	if b != nil {
		return b, nil
	}
	// Two callers may both open it; either result serves.
	ctx, cancel := bounded(ctx, tryTimeout)
	defer cancel()
	b, err := openExisting[T](ctx, conn, l.name)
	if err != nil {
		return nil, translate(err, fmt.Sprintf("cannot open bucket %q", l.name))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = b
	return b, nil
}

// FollowPlacements calls fn with every placement, then with an empty ID, then with every change of one until ctx ends; nil when a machine
// has none any more. An error of fn ends it.
func (h *HostBus) FollowPlacements(ctx context.Context, fn func(drover.MachineID, *drover.Placement) error) error {
	return follow(ctx, h.conn, &h.placements, func(key string, p *drover.Placement, rev uint64) error {
		if p != nil {
			p.Epoch = drover.Epoch(rev)
		}
		return fn(drover.MachineID(key), p)
	})
}

// FollowMachines is FollowPlacements for the machines' records.
func (h *HostBus) FollowMachines(ctx context.Context, fn func(drover.MachineID, *drover.Machine) error) error {
	return follow(ctx, h.conn, &h.machines, func(key string, m *drover.Machine, _ uint64) error { return fn(drover.MachineID(key), m) })
}

// FollowHosts is FollowPlacements for what hosts say of themselves; what changes all the time is told about once a minute.
func (h *HostBus) FollowHosts(ctx context.Context, fn func(drover.HostID, *drover.HostInfo) error) error {
	return follow(ctx, h.conn, &h.hosts, func(key string, i *drover.HostInfo, _ uint64) error { return fn(drover.HostID(key), i) })
}

// FollowPeers is FollowPlacements for the peers of people, by their keys.
func (h *HostBus) FollowPeers(ctx context.Context, fn func(string, *drover.WireGuardPeer) error) error {
	return follow(ctx, h.conn, &h.peers, func(key string, p *drover.WireGuardPeer, _ uint64) error {
		if key != "" && !IsPeerKey(key) {
			return nil
		}
		return fn(key, p)
	})
}

// FollowPolicies is FollowPlacements for the network policies of apps.
func (h *HostBus) FollowPolicies(ctx context.Context, fn func(drover.AppName, *drover.AppPolicies) error) error {
	return follow(ctx, h.conn, &h.policies, func(key string, p *drover.AppPolicies, _ uint64) error { return fn(drover.AppName(key), p) })
}

// follow watches a bucket that the control side makes, perhaps later.
func follow[T any](ctx context.Context, conn *Conn, bucket *lazyBucket[T], fn func(key string, value *T, rev uint64) error) error {
	return followEntries(ctx, conn, bucket, func(e Entry[T]) error {
		switch {
		case e.Synced:
			return fn("", nil, 0)
		case e.Deleted:
			return fn(e.Key, nil, e.Revision)
		}
		return fn(e.Key, &e.Value, e.Revision)
	})
}

func followEntries[T any](ctx context.Context, conn *Conn, bucket *lazyBucket[T], fn func(Entry[T]) error) error {
	b, err := retryOpen(ctx, bucket.name, func(ctx context.Context) (*Bucket[T], error) { return bucket.get(ctx, conn) })
	if err != nil {
		return err
	}
	return b.Watch(ctx, fn)
}

// Placement reads the newest placement of a machine, with its epoch. It is linearizable: what it returns was true at some moment
// after the call. NotFound when the machine has none; Unavailable when the bus does not answer.
func (h *HostBus) Placement(ctx context.Context, id drover.MachineID) (drover.Placement, error) {
	b, err := h.placements.get(ctx, h.conn)
	if err != nil {
		return drover.Placement{}, err
	}
	p, rev, err := b.GetConfirmed(ctx, string(id))
	if err != nil {
		return drover.Placement{}, err
	}
	p.Epoch = drover.Epoch(rev)
	return p, nil
}

// Machine reads the desired state of a machine.
func (h *HostBus) Machine(ctx context.Context, id drover.MachineID) (drover.Machine, error) {
	b, err := h.machines.get(ctx, h.conn)
	if err != nil {
		return drover.Machine{}, err
	}
	m, _, err := b.Get(ctx, string(id))
	return m, err
}

// Migration reads the record of a migration.
func (h *HostBus) Migration(ctx context.Context, id drover.MigrationID) (drover.Migration, error) {
	b, err := h.migrations.get(ctx, h.conn)
	if err != nil {
		return drover.Migration{}, err
	}
	m, _, err := b.GetConfirmed(ctx, string(id))
	return m, err
}

// Hosts lists the hosts that have joined, as they described themselves last.
func (h *HostBus) Hosts(ctx context.Context) ([]drover.HostInfo, error) {
	b, err := h.hosts.get(ctx, h.conn)
	if err != nil {
		return nil, err
	}
	all, err := b.All(ctx)
	list := make([]drover.HostInfo, 0, len(all))
	for _, r := range all {
		list = append(list, r.Value)
	}
	slices.SortFunc(list, func(a, b drover.HostInfo) int { return cmp.Compare(a.ID, b.ID) })
	return list, err
}

// PublishStatus writes the host's status of a machine, unless another host wrote one of a newer epoch (Conflict). It is one write where no other host has
// written of the machine since this one did, or ever.
func (h *HostBus) PublishStatus(ctx context.Context, s drover.MachineStatus) error {
	b, err := h.status.get(ctx, h.conn)
	if err != nil {
		return err
	}
	key, any := StatusKey(s.Machine, h.host), StatusKey(s.Machine, anyHost)
	h.mu.Lock()
	last := h.statuses[s.Machine]
	h.mu.Unlock()
	if last.epoch > s.Epoch {
		return drover.Errorf(drover.Conflict, "status of machine %q at epoch %d is not published: this host wrote one at epoch %d", s.Machine, s.Epoch, last.epoch)
	}
	rev, err := b.WriteAfter(ctx, key, s, last.rev, any)
	for try := 0; try < statusTries && overtaken(err); try++ {
		var newest, own drover.MachineStatus
		if newest, _, err = b.Get(ctx, any); err != nil && !drover.Is(err, drover.NotFound) {
			return err
		}
		if err == nil && newest.Epoch > s.Epoch {
			return drover.Errorf(drover.Conflict, "status of machine %q at epoch %d is not published: host %q wrote one at epoch %d",
				s.Machine, s.Epoch, newest.Host, newest.Epoch)
		}
		own, rev, err = b.Get(ctx, key)
		switch {
		case drover.Is(err, drover.NotFound):
			rev, err = b.Create(ctx, key, s)
		case err != nil:
			return err
		case own.Epoch > s.Epoch:
			return drover.Errorf(drover.Conflict, "status of machine %q at epoch %d is not published: this host wrote one at epoch %d", s.Machine, s.Epoch, own.Epoch)
		default:
			rev, err = b.Update(ctx, key, s, rev)
		}
	}
	switch {
	case overtaken(err):
		return drover.Errorf(drover.Unavailable, "status of machine %q is not published: it was written by others %d times meanwhile", s.Machine, statusTries)
	case err != nil:
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.statuses) >= maxStatuses {
		clear(h.statuses)
	}
	h.statuses[s.Machine] = written{rev, s.Epoch}
	return nil
}

// overtaken reports whether a write failed because another one came before it.
func overtaken(err error) bool {
	return drover.Is(err, drover.Conflict) || drover.Is(err, drover.Exists)
}

// PublishInfo says that the host lives, and stores its description when it changed or a minute has passed.
func (h *HostBus) PublishInfo(ctx context.Context, info drover.HostInfo) error {
	if !h.conn.Up() {
		return drover.Errorf(drover.Unavailable, "host %q cannot say that it lives: there is no connection to the bus", h.host)
	}
	data, err := json.Marshal(info)
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot describe host %q: %w", h.host, err)
	}
	if err := h.conn.nc.PublishMsg(&nats.Msg{Subject: seenSubject(string(h.host)), Data: data}); err != nil {
		return translate(err, fmt.Sprintf("host %q cannot say that it lives", h.host))
	}
	if !h.mustStore(info) {
		return nil
	}
	b, err := h.hosts.get(ctx, h.conn)
	if err != nil {
		return err
	}
	if _, err := b.Put(ctx, string(h.host), info); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stored, h.storedAt = info, time.Now()
	return nil
}

func (h *HostBus) mustStore(info drover.HostInfo) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.stored
	old.MemoryUsed, old.CPUsUsed, old.DiskUsed, old.DiskProvisioned, old.Machines = info.MemoryUsed, info.CPUsUsed, info.DiskUsed, info.DiskProvisioned, info.Machines
	old.RoutesDigest = info.RoutesDigest
	return !reflect.DeepEqual(old, info) || time.Since(h.storedAt) > infoEvery
}

// Serve answers an order with the handler until ctx ends and the handlers under way have returned. A handler may take as long as it
// needs: the asker is told every second that it is at work. Each request has a goroutine of its own, 64 per order at most.
func (h *HostBus) Serve(ctx context.Context, order drover.Order, handler func(ctx context.Context, request []byte) (any, error)) error {
	return h.conn.serve(ctx, string(h.host), string(order), handler)
}

// Connected is closed and replaced at each (re)connection.
func (h *HostBus) Connected() <-chan struct{} { return h.conn.Connected() }

// WatchSeen calls fn for each sign of life of any host, until ctx ends.
func WatchSeen(ctx context.Context, conn *Conn, fn func(drover.HostInfo)) error {
	signs := make(chan *nats.Msg, 4096)
	sub, err := conn.nc.ChanSubscribe(seenSubject("*"), signs)
	if err != nil {
		return translate(err, "cannot listen for hosts")
	}
	defer conn.drop(sub)
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-signs:
			var info drover.HostInfo
			if err := json.Unmarshal(m.Data, &info); err != nil || m.Subject != seenSubject(string(info.ID)) || m.Reply != "" { // see asked
				conn.log.Warn("sign of life of a host cannot be read", "subject", m.Subject, "err", err)
				continue
			}
			fn(info)
		}
	}
}
