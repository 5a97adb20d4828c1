package fleet

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/migrate"
	"drover/natsbus"
)

// claim reserves something for an ID whose record is not written yet. At is when.
type claim struct {
	Machine   drover.MachineID   `json:"machine,omitempty"`
	Migration drover.MigrationID `json:"migration,omitempty"`
	// Undoes is the migration that had the claim before, and has it again should the one that takes it back come to nothing.
	Undoes   drover.MigrationID `json:"undoes,omitempty"`
	Snapshot drover.SnapshotID  `json:"snapshot,omitempty"`
	At       time.Time          `json:"at"`
}

// The keys of claims.
func nameClaim(app drover.AppName, name string) string { return "name." + string(app) + "." + name }
func moveClaim(id drover.MachineID) string             { return "move." + string(id) }

// storeClaim is held by the one snapshot of a volume that is at work in the object store, adding to it or taking from it.
func storeClaim(id drover.VolumeID) string { return "store." + string(id) }

// state is all that the fleet agrees on, with its image in memory and the indexes over it.
type state struct {
	now func() time.Time

	mu         sync.RWMutex
	apps       *table[drover.App]
	machines   *table[drover.Machine]
	placements *table[drover.Placement]
	status     *statuses
	volumes    *table[drover.Volume]
	snapshots  *table[drover.Snapshot]
	migrations *table[drover.Migration]
	hosts      *table[drover.HostInfo]
	tokens     *table[tokenRecord]
	leases     *table[lease]
	counters   *table[uint64]
	claims     *table[claim]
	tallies    *table[tally]
	marks      *table[drover.HostMark]
	drains     *table[drover.Drain]
	halts      *table[drover.ClassHalt]
	fences     *table[drover.HostFence]
	recoveries *table[drover.Recovery]
	standbys   *table[drover.Standby]
	// machineLeases is by machine. requests has those that carry a key against being carried out twice.
	machineLeases *table[drover.MachineLease]
	requests      *table[request]
	// versions is not followed: it is read where somebody asks.
	versions   *natsbus.Bucket[drover.MachineVersion]
	releases   *table[drover.Release]
	deploys    *table[drover.Deploy]
	identities *table[drover.HostIdentity]
	peers      *table[drover.WireGuardPeer]
	policies   *table[drover.AppPolicies]

	// Indexes, guarded by mu.
	machinesOf index[drover.AppName]   // machine IDs by app
	volumesOf  index[drover.AppName]   // volume IDs by app
	volumesOn  index[drover.MachineID] // volume IDs by the machine that has them
	placedOn   index[drover.HostID]    // machine IDs by host
	snapsOf    index[drover.VolumeID]  // snapshot IDs by volume
	snapsIn    index[drover.AppName]   // snapshot IDs by app
	movesOf    index[drover.MachineID] // IDs of migrations that have not ended, by machine
	releasesOf index[drover.AppName]   // keys of releases by app
	tokensBy   index[drover.TokenID]   // keys of tokens by their ID
	drainsOf   index[drover.HostID]    // IDs of drains that empty a host now
	loads      loads
	routing    routing
	listings   *listings
	heard      map[drover.HostID]sign
	startedAt  time.Time
}

// sign is the last sign of life of a host.
type sign struct {
	at   time.Time
	info drover.HostInfo
}

// index has keys of a table by something that their records say.
type index[K comparable] map[K]map[string]struct{}

func (x index[K]) add(k K, key string) {
	if x[k] == nil {
		x[k] = map[string]struct{}{}
	}
	x[k][key] = struct{}{}
}

func (x index[K]) drop(k K, key string) {
	delete(x[k], key)
	if len(x[k]) == 0 {
		delete(x, k)
	}
}

// keep returns a function that keeps the index right as records change; by says under what a record belongs, if at all.
func keep[K comparable, T any](x index[K], by func(T) (K, bool)) func(string, *T, *T) {
	return func(key string, old, now *T) {
		if old != nil {
			if k, ok := by(*old); ok {
				x.drop(k, key)
			}
		}
		if now != nil {
			if k, ok := by(*now); ok {
				x.add(k, key)
			}
		}
	}
}

func newState(now func() time.Time) *state {
	s := &state{now: now, machinesOf: index[drover.AppName]{}, volumesOf: index[drover.AppName]{}, volumesOn: index[drover.MachineID]{},
		snapsOf: index[drover.VolumeID]{}, snapsIn: index[drover.AppName]{}, placedOn: index[drover.HostID]{}, movesOf: index[drover.MachineID]{}, heard: map[drover.HostID]sign{}, startedAt: now(),
		releasesOf: index[drover.AppName]{}, tokensBy: index[drover.TokenID]{}, drainsOf: index[drover.HostID]{}, loads: newLoads(), routing: newRouting(),
		listings: &listings{of: map[drover.AppName]*listing{}}}
	s.apps = newTable[drover.App](&s.mu, natsbus.BucketApps)
	s.machines = newTable[drover.Machine](&s.mu, natsbus.BucketMachines)
	ofApp := keep(s.machinesOf, func(m drover.Machine) (drover.AppName, bool) { return m.App, true })
	s.machines.changed = func(key string, old, now *drover.Machine) {
		ofApp(key, old, now)
		s.recountLocked(key)
		s.routeMachineLocked(key)
		for _, m := range [...]*drover.Machine{old, now} {
			if m != nil {
				s.listings.touchLocked(m.App, key)
			}
		}
	}
	s.placements = newTable[drover.Placement](&s.mu, natsbus.BucketPlacements)
	onHost := keep(s.placedOn, func(p drover.Placement) (drover.HostID, bool) { return p.Host, true })
	s.placements.changed = func(key string, old, now *drover.Placement) {
		onHost(key, old, now)
		s.recountLocked(key)
		s.routeMachineLocked(key)
		s.touchLocked(key)
	}
	s.status = newStatuses(s)
	s.volumes = newTable[drover.Volume](&s.mu, natsbus.BucketVolumes)
	byApp := keep(s.volumesOf, func(v drover.Volume) (drover.AppName, bool) { return v.App, true })
	byMachine := keep(s.volumesOn, func(v drover.Volume) (drover.MachineID, bool) { return v.Machine, v.Machine != "" })
	s.volumes.changed = func(key string, old, now *drover.Volume) {
		byApp(key, old, now)
		byMachine(key, old, now)
	}
	s.snapshots = newTable[drover.Snapshot](&s.mu, natsbus.BucketSnapshots)
	ofVolume := keep(s.snapsOf, func(x drover.Snapshot) (drover.VolumeID, bool) { return x.Volume, true })
	inApp := keep(s.snapsIn, func(x drover.Snapshot) (drover.AppName, bool) { return x.App, true })
	s.snapshots.changed = func(key string, old, now *drover.Snapshot) {
		ofVolume(key, old, now)
		inApp(key, old, now)
	}
	s.migrations = newTable[drover.Migration](&s.mu, natsbus.BucketMigrations)
	ofMachine := keep(s.movesOf, func(m drover.Migration) (drover.MachineID, bool) { return m.Machine, !m.Ended() })
	s.migrations.changed = func(key string, old, now *drover.Migration) {
		ofMachine(key, old, now)
		for _, m := range [...]*drover.Migration{old, now} {
			if m != nil {
				s.touchLocked(string(m.Machine))
			}
		}
	}
	s.hosts = newTable[drover.HostInfo](&s.mu, natsbus.BucketHosts)
	s.hosts.changed = func(key string, _, _ *drover.HostInfo) { s.meetLocked(drover.HostID(key)) }
	s.tokens = newTable[tokenRecord](&s.mu, natsbus.BucketTokens)
	s.tokens.changed = func(key string, old, now *tokenRecord) {
		if !isToken(key) {
			return
		}
		if old != nil {
			s.tokensBy.drop(old.id(key), key)
		}
		if now != nil {
			s.tokensBy.add(now.id(key), key)
		}
	}
	s.leases = newTable[lease](&s.mu, natsbus.BucketLeases)
	s.counters = newTable[uint64](&s.mu, natsbus.BucketCounters)
	s.claims = newTable[claim](&s.mu, natsbus.BucketClaims)
	s.tallies = newTable[tally](&s.mu, natsbus.BucketTallies)
	s.marks = newTable[drover.HostMark](&s.mu, natsbus.BucketMarks)
	s.drains = newTable[drover.Drain](&s.mu, natsbus.BucketDrains)
	s.drains.changed = keep(s.drainsOf, func(d drover.Drain) (drover.HostID, bool) { return d.Host, d.Kind == drover.DrainAway && !d.Ended() })
	s.halts = newTable[drover.ClassHalt](&s.mu, natsbus.BucketHalts)
	s.fences = newTable[drover.HostFence](&s.mu, natsbus.BucketFences)
	s.recoveries = newTable[drover.Recovery](&s.mu, natsbus.BucketRecoveries)
	s.standbys = newTable[drover.Standby](&s.mu, natsbus.BucketStandbys)
	s.machineLeases = newTable[drover.MachineLease](&s.mu, natsbus.BucketMachineLeases)
	s.requests = newTable[request](&s.mu, natsbus.BucketRequests)
	s.releases = newTable[drover.Release](&s.mu, natsbus.BucketReleases)
	s.releases.changed = keep(s.releasesOf, func(r drover.Release) (drover.AppName, bool) { return r.App, true })
	s.deploys = newTable[drover.Deploy](&s.mu, natsbus.BucketDeploys)
	s.identities = newTable[drover.HostIdentity](&s.mu, natsbus.BucketIdentities)
	s.identities.changed = func(string, *drover.HostIdentity, *drover.HostIdentity) { s.meetAllLocked() }
	s.peers = newTable[drover.WireGuardPeer](&s.mu, natsbus.BucketWireGuard)
	s.peers.changed = func(key string, _, _ *drover.WireGuardPeer) { s.routePeerLocked(key) }
	s.policies = newTable[drover.AppPolicies](&s.mu, natsbus.BucketPolicies)
	return s
}

// follower is what all tables have, whatever is in them.
type follower interface {
	open(ctx context.Context, conn *natsbus.Conn, replicas int) error
	follow(ctx context.Context, told func(key string)) error
	done() <-chan struct{}
}

func (t *table[T]) done() <-chan struct{} { return t.synced }

func (s *state) followers() []follower {
	return []follower{s.apps, s.machines, s.placements, s.status, s.volumes, s.snapshots, s.migrations, s.hosts, s.tokens, s.leases, s.counters, s.claims,
		s.marks, s.drains, s.halts, s.tallies, s.fences, s.recoveries, s.standbys,
		s.machineLeases, s.requests, s.releases, s.deploys, s.identities, s.peers, s.policies}
}

// open makes and opens the buckets; it tries until ctx ends.
func (s *state) open(ctx context.Context, conn *natsbus.Conn, replicas int) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, t := range s.followers() {
		g.Go(func() error { return t.open(ctx, conn, replicas) })
	}
	g.Go(func() (err error) {
		s.versions, err = natsbus.OpenBucket[drover.MachineVersion](ctx, conn, natsbus.BucketVersions, natsbus.BucketOptions{History: maxVersions, Replicas: replicas})
		return err
	})
	return g.Wait()
}

// follow starts to follow every bucket in the group. Machines whose records change are kicked.
func (s *state) follow(ctx context.Context, g *errgroup.Group, k *kicks) {
	for _, t := range s.followers() {
		told := func(string) {}
		switch t {
		case follower(s.machines), follower(s.placements):
			told = func(key string) { k.add(drover.MachineID(key)) }
		case follower(s.status):
			told = func(key string) { id, _ := natsbus.SplitStatusKey(key); k.add(id) }
		}
		g.Go(func() error { return t.follow(ctx, told) })
	}
}

// wait returns when every table has been read once.
func (s *state) wait(ctx context.Context) error {
	for _, t := range s.followers() {
		select {
		case <-t.done():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// placementOf reads a machine's placement from the store, with its epoch.
func (s *state) placementOf(ctx context.Context, id drover.MachineID) (drover.Placement, error) {
	p, rev, err := s.placements.bucket.GetConfirmed(ctx, string(id))
	if err != nil {
		return drover.Placement{}, err
	}
	s.placements.set(string(id), p, rev, false)
	p.Epoch = drover.Epoch(rev)
	return p, nil
}

// moveLocked returns the migration of a machine that has not ended: the one that holds it, if there is one.
func (s *state) moveLocked(id drover.MachineID) *drover.Migration {
	var found *drover.Migration
	for key := range s.movesOf[id] {
		m := s.migrations.items[key].value
		if found == nil || migrate.Holds(m) || (!migrate.Holds(*found) && m.CreatedAt.After(found.CreatedAt)) {
			found = &m
		}
	}
	return found
}
