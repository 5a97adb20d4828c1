package apitest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"drover"
	"drover/api"
	"drover/fleet"
)

// The tokens that New knows.
const (
	OperatorToken = "operator-token"
	AcmeToken     = "acme-token"  // of organization "acme"
	OtherToken    = "other-token" // of organization "other"
)

// Epoch is the time of everything that a Backend makes, unless the test sets Now.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Backend keeps everything in memory. IDs count up, so that output can be compared.
type Backend struct {
	// Fail, when it is set, is asked before each call by its name ("CreateMachine"); an error is the call's answer.
	Fail func(method string) error
	// Now is the clock.
	Now func() time.Time
	// Exec answers ExecMachine.
	Exec func(drover.ExecRequest) (drover.ExecResult, error)
	// Slow leaves snapshots and verifications under way until the test changes them; without it they are done at once.
	Slow bool
	// NeedsRestart is what ExtendVolume says.
	NeedsRestart bool
	// DrainsEnd makes drains end at once, with everything moved.
	DrainsEnd bool

	mu         sync.Mutex
	changed    chan struct{}
	count      int
	apps       map[drover.AppName]drover.App
	machines   map[drover.MachineID]fleet.MachineView
	volumes    map[drover.VolumeID]fleet.VolumeView
	snapshots  map[drover.SnapshotID]drover.Snapshot
	verified   map[drover.VolumeID]drover.Verification
	hosts      []drover.HostInfo
	migrations map[drover.MigrationID]drover.Migration
	drains     map[drover.DrainID]drover.Drain
	logs       []drover.LogLine
	signals    []drover.SignalRequest
	rotations  int
	fences     map[drover.HostID]drover.HostFence
	recoveries map[drover.RecoveryID]drover.Recovery
	standbys   map[drover.StandbyID]drover.Standby
	tokens     map[drover.TokenID]madeToken
	trail      []drover.AuditEntry
	leases     map[drover.MachineID]drover.MachineLease
	versions   map[drover.MachineID][]drover.MachineVersion
	once       map[fleet.Once]drover.MachineID
	secrets    map[drover.AppName]secretsOf
	releases   []drover.Release
	deploys    []drover.Deploy // newest first
	peers      []drover.WireGuardView
	policies   map[drover.AppName][]drover.NetworkPolicy
	keys       map[drover.HostID]drover.MeshKey
}

var _ api.Backend = (*Backend)(nil)

// New returns a Backend with two hosts, h1 in region "north" and h2 in region "south".
func New() *Backend {
	host := func(id drover.HostID, region drover.Region) drover.HostInfo {
		return drover.HostInfo{ID: id, Region: region, Roles: []drover.Role{drover.RoleWorker}, Address: "10.0.0.1", StorageAddress: "10.0.0.1:4290",
			Accel: drover.AccelTCG, AccelReason: "/dev/kvm: no such file", VMM: "QEMU 7.2.22", Version: "test", CPUs: 2, Memory: 4 * drover.GiB,
			MemoryUsed: drover.GiB, Disk: 100 * drover.GiB, DiskUsed: 10 * drover.GiB, DiskProvisioned: 40 * drover.GiB, StartedAt: epoch, SeenAt: epoch, Status: drover.HostOK}
	}
	return &Backend{
		Now:        func() time.Time { return epoch },
		changed:    make(chan struct{}),
		keys:       map[drover.HostID]drover.MeshKey{},
		apps:       map[drover.AppName]drover.App{},
		machines:   map[drover.MachineID]fleet.MachineView{},
		volumes:    map[drover.VolumeID]fleet.VolumeView{},
		snapshots:  map[drover.SnapshotID]drover.Snapshot{},
		verified:   map[drover.VolumeID]drover.Verification{},
		hosts:      []drover.HostInfo{host("h1", "north"), host("h2", "south")},
		migrations: map[drover.MigrationID]drover.Migration{},
		drains:     map[drover.DrainID]drover.Drain{},
		fences:     map[drover.HostID]drover.HostFence{},
		recoveries: map[drover.RecoveryID]drover.Recovery{},
		standbys:   map[drover.StandbyID]drover.Standby{},
		tokens:     map[drover.TokenID]madeToken{},
		leases:     map[drover.MachineID]drover.MachineLease{},
		versions:   map[drover.MachineID][]drover.MachineVersion{},
		once:       map[fleet.Once]drover.MachineID{},
	}
}

// begin is called at the start of each method; it fails, or returns with the lock held.
func (b *Backend) begin(method string) error {
	if b.Fail != nil {
		if err := b.Fail(method); err != nil {
			return err
		}
	}
	b.mu.Lock()
	return nil
}

// notifyLocked wakes whoever waits for a change.
func (b *Backend) notifyLocked() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *Backend) nextLocked() int {
	b.count++
	return b.count
}

// ChangeMachine lets the test change what is known of a machine.
func (b *Backend) ChangeMachine(id drover.MachineID, change func(*fleet.MachineView)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.machines[id]
	change(&v)
	b.machines[id] = v
	b.notifyLocked()
}

// ChangeVolume lets the test change what is known of a volume.
func (b *Backend) ChangeVolume(id drover.VolumeID, change func(*fleet.VolumeView)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.volumes[id]
	change(&v)
	b.volumes[id] = v
	b.notifyLocked()
}

// ChangeSnapshot lets the test change a snapshot.
func (b *Backend) ChangeSnapshot(id drover.SnapshotID, change func(*drover.Snapshot)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.snapshots[id]
	change(&s)
	b.snapshots[id] = s
	b.notifyLocked()
}

// ChangeVerification lets the test change how far the verification of a volume is.
func (b *Backend) ChangeVerification(id drover.VolumeID, change func(*drover.Verification)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.verified[id]
	change(&v)
	b.verified[id] = v
	b.notifyLocked()
}

// ChangeMigration lets the test change a migration, or make one.
func (b *Backend) ChangeMigration(id drover.MigrationID, change func(*drover.Migration)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.migrations[id]
	m.ID = id
	change(&m)
	b.migrations[id] = m
	b.notifyLocked()
}

// ChangeHosts lets the test change the hosts.
func (b *Backend) ChangeHosts(change func([]drover.HostInfo) []drover.HostInfo) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hosts = change(b.hosts)
}

// Log appends lines to the log that every machine has.
func (b *Backend) Log(lines ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, text := range lines {
		b.logs = append(b.logs, drover.LogLine{At: b.Now(), Stream: "stdout", Text: text})
	}
	b.notifyLocked()
}

// Signals returns the signals that were sent.
func (b *Backend) Signals() []drover.SignalRequest {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.signals)
}

// Count returns how many apps, machines and volumes there are.
func (b *Backend) Count() (apps, machines, volumes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.apps), len(b.machines), len(b.volumes)
}

// CreateApp makes an app.
func (b *Backend) CreateApp(_ context.Context, app drover.App) (drover.App, error) {
	if err := b.begin("CreateApp"); err != nil {
		return drover.App{}, err
	}
	defer b.mu.Unlock()
	if _, ok := b.apps[app.Name]; ok {
		return drover.App{}, drover.Errorf(drover.Exists, "the app name %q is taken", app.Name).WithHint("choose another name")
	}
	app.CreatedAt = b.Now()
	b.apps[app.Name] = app
	return app, nil
}

func (b *Backend) hostLocked(id drover.HostID) (drover.HostInfo, error) {
	i := slices.IndexFunc(b.hosts, func(h drover.HostInfo) bool { return h.ID == id })
	if i < 0 {
		return drover.HostInfo{}, drover.Errorf(drover.NotFound, "no host %q", id).WithHint("'drover host list' shows the hosts that there are")
	}
	return b.hosts[i], nil
}

func machineID(n int) drover.MachineID {
	return drover.MachineID(fmt.Sprintf("%014x", 0xd0000000000000+n))
}
func snapshotID(n int) drover.SnapshotID   { return drover.SnapshotID(fmt.Sprintf("vs_%016x", n)) }
func volumeID(n int) drover.VolumeID       { return drover.VolumeID(fmt.Sprintf("vol_%016x", n)) }
func migrationID(n int) drover.MigrationID { return drover.MigrationID(fmt.Sprintf("mig_%016x", n)) }
