package fleet

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/internal/fault"
	"drover/migrate"
	"drover/natsbus"
	"drover/sealedkeys"
	"drover/sealedsecrets"
)

// Timing is every bound and interval of the fleet's own.
type Timing struct {
	// Ready is how long a request waits for the state to be read after a start.
	Ready time.Duration
	// Unreachable is how long a host may be silent before it counts as unreachable.
	Unreachable time.Duration
	// PowerOff is how long nobody may reach a host before it is switched off for machines that may be started elsewhere without asking.
	PowerOff time.Duration
	// Behind is how long a host may go on telling of where machines were before it is asked what it believes: news take up to a second, and what a host tells is up to 4 s old.
	Behind time.Duration
	// Offer is how long hosts may take to make an offer while others have made theirs. Resolve and Apply bound those orders on a host that says
	// that it is at work; one that is silent is given up after seconds. Make bounds all that it takes to make a machine.
	Offer, Resolve, Apply, Make time.Duration
	// LeaseTTL is how long a silent holder keeps the lease, LeaseRenew how often it renews it.
	LeaseTTL, LeaseRenew time.Duration
	// Repair is how often everything is compared with what it should be, besides at each change.
	Repair time.Duration
	// Stale is the age from which a claim without a record is what a crash left. It must be well above Make.
	Stale time.Duration
	// KeepDestroyed is how long the record of a destroyed machine is kept, KeepMigrations that of a migration that ended.
	KeepDestroyed, KeepMigrations time.Duration
	// KeepDrains is how long the record of a drain is kept.
	KeepDrains time.Duration
	// KeepVolumes is how long a destroyed volume, or an app with volumes, can be brought back; with 0 it is wiped at once.
	KeepVolumes time.Duration
	// Reserve is how long room for a machine is held with a volume.
	Reserve time.Duration
	// Drain is how often drains are looked at besides at each change, Regions how often it is asked whether every host could be drained.
	Drain, Regions time.Duration
	// Work is how often snapshots that are on their way into the object store, and volumes that are being filled, are looked at.
	Work time.Duration
	// TokenBound is how long a revocation may take to reach every control host; one that cannot be sure of that refuses tokens. TokenProof is how
	// often a control host makes sure, TokenUses how often the last uses of tokens are written, KeepTokens how long it is known of one that it was.
	TokenBound, TokenProof, TokenUses, KeepTokens time.Duration
}

// DefaultTiming is the timing that a fleet uses.
func DefaultTiming() Timing {
	return Timing{
		Ready: 5 * time.Second, Unreachable: 10 * time.Second, PowerOff: time.Minute, Behind: 4 * time.Second,
		Offer: 1500 * time.Millisecond, Resolve: 60 * time.Second, Apply: 20 * time.Second, Make: 2 * time.Minute,
		LeaseTTL: 6 * time.Second, LeaseRenew: 2 * time.Second,
		Repair: 10 * time.Second, Stale: 5 * time.Minute,
		KeepDestroyed: 24 * time.Hour, KeepMigrations: 30 * 24 * time.Hour, KeepDrains: 365 * 24 * time.Hour,
		Reserve:     time.Hour,
		KeepVolumes: 24 * time.Hour, Work: 2 * time.Second,
		Drain: time.Second, Regions: 3 * time.Minute,
		TokenBound: 5 * time.Second, TokenProof: time.Second, TokenUses: time.Minute, KeepTokens: 30 * 24 * time.Hour,
	}
}

// Config is what a Fleet needs.
type Config struct {
	Conn *natsbus.Conn
	// Host is the control host's ID; no two processes may run a Fleet under one.
	Host drover.HostID
	Log  *slog.Logger
	// Organization owns the apps that are created without one. Default: "personal".
	Organization string
	// Replicas is how many NATS servers hold each bucket. Default: 1.
	Replicas int
	// Snapshots removes snapshots from the object store. Without it none are taken.
	Snapshots SnapshotStore
	// Keys keeps the keys of volumes. Nil for the fleet's own store, which needs TLSDir, this host's directory of certificates (internal/fleetca). With
	// neither, volumes are not encrypted, and have to be asked for so.
	Keys   drover.KeyStore
	TLSDir string
	// Power switches hosts off. Nil: only people do.
	Power PowerSwitch
	// GuestSizes says which sizes machines may have: GuestSizesDocumented, or all that a host can run when it is empty.
	GuestSizes string
	// Traces exports the traces of migrations. Nil exports none.
	Traces TraceExporter
	// Clock tells the time; nil for the system's.
	Clock func() time.Time
	// Faults may be nil.
	Faults *fault.Points
	// Timing and Rules are nil for the defaults.
	Timing *Timing
	Rules  *migrate.Rules
}

// Fleet is the control role on one control host. Its methods are safe for concurrent use.
type Fleet struct {
	cfg    Config
	conn   *natsbus.Conn
	log    *slog.Logger
	now    func() time.Time
	timing Timing
	rules  migrate.Rules
	// hit is where faults strike; tests replace it.
	hit func(point string)

	state *state
	// keys is nil in a fleet that keeps none; sealed is the same store where it is the fleet's own.
	keys   drover.KeyStore
	sealed *sealedkeys.Store
	// roots, proof, local and used are about tokens: the keys that they are made with, up to when revocations are known, those that were put
	// here, and when they were used.
	roots roots
	proof *proof
	local *localTokens
	used  used
	trail *trail
	// secrets is nil in a fleet that keeps no keys. secretRecords is what the fleet's own store of them lies in.
	secrets       drover.SecretStore
	secretRecords *natsbus.Bucket[sealedsecrets.Record]
	traces        *traces
	// ready is closed once the state is complete.
	ready chan struct{}
	// kicks wakes the repair of single machines; tellings keeps it from telling hosts what they are being told.
	kicks    *kicks
	tellings *tellings
	power    *powerTries
	numbers  *numbers
	// regionsSeen remembers which regions could not be drained.
	regionsSeen *regionWatch
	// beliefs remembers what hosts believe of where machines are.
	beliefs *beliefs
}

// New returns a Fleet that does nothing before Run.
func New(cfg Config) (*Fleet, error) {
	if cfg.Conn == nil || cfg.Log == nil || !drover.ValidName(string(cfg.Host)) {
		return nil, drover.Errorf(drover.Invalid, "a fleet needs a connection, a log and the name of its control host (got %q)", cfg.Host)
	}
	if cfg.Organization == "" {
		cfg.Organization = "personal"
	}
	f := &Fleet{cfg: cfg, conn: cfg.Conn, log: cfg.Log, now: cfg.Clock, timing: DefaultTiming(), rules: migrate.DefaultRules(),
		hit: cfg.Faults.Hit, ready: make(chan struct{}), kicks: newKicks(), tellings: newTellings(), numbers: newNumbers(), keys: cfg.Keys}
	if f.now == nil {
		f.now = time.Now
	}
	if cfg.Timing != nil {
		f.timing = *cfg.Timing
	}
	if cfg.Rules != nil {
		f.rules = *cfg.Rules
	}
	f.state = newState(f.now)
	f.traces = &traces{Fleet: f}
	f.regionsSeen, f.power, f.beliefs = newRegionWatch(), newPowerTries(), newBeliefs()
	f.roots.keys, f.used.at, f.proof, f.local = map[drover.KeyID][]byte{}, map[string]time.Time{}, newProof(), &localTokens{keys: map[string]bool{}}
	f.trail = newTrail()
	return f, nil
}

// errEnded ends the group of Run when ctx ended.
var errEnded = errors.New("ended")

// Run opens the buckets, follows them, and takes part in leading, until ctx ends.
func (f *Fleet) Run(ctx context.Context) error {
	err := f.state.open(ctx, f.conn, f.cfg.Replicas)
	if err == nil {
		err = f.openKeys(ctx)
	}
	if err == nil {
		err = f.openAudit(ctx)
	}
	if err == nil {
		err = f.openSecrets(ctx)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	f.state.follow(ctx, g, f.kicks)
	g.Go(func() error { return natsbus.WatchSeen(ctx, f.conn, f.heard) })
	g.Go(func() error { f.tendKeys(ctx); return nil })
	g.Go(func() error { f.serveKeys(ctx); return nil })
	g.Go(func() error { f.serveSecrets(ctx); return nil })
	g.Go(func() error { f.serveIdentities(ctx); return nil })
	g.Go(func() error {
		if f.state.wait(ctx) == nil { // before that everything would be doubted
			f.serveOwned(ctx)
		}
		return nil
	})
	g.Go(func() error {
		if f.state.wait(ctx) == nil {
			f.watchBeliefs(ctx)
		}
		return nil
	})
	g.Go(func() error { f.watchRegions(ctx); return nil })
	g.Go(func() error { f.proveTokens(ctx); return nil })
	g.Go(func() error { f.keepUses(ctx); return nil })
	g.Go(func() error { f.keepTrail(ctx); return nil })
	g.Go(func() error {
		if err := f.state.wait(ctx); err != nil {
			return errEnded
		}
		f.log.Info("the fleet's state is read")
		close(f.ready)
		return f.lead(ctx)
	})
	err = g.Wait()
	if errors.Is(err, errEnded) {
		return nil
	}
	return err
}

// await returns when the state is complete.
func (f *Fleet) await(ctx context.Context) error {
	select {
	case <-f.ready:
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, f.timing.Ready)
	defer cancel()
	select {
	case <-f.ready:
		return nil
	case <-ctx.Done():
		return drover.Errorf(drover.Unavailable, "control host %q has not read the fleet's state yet: the store does not answer", f.cfg.Host).
			WithHint("ask again in a moment")
	}
}

// order gives an order to a host, within a bound.
func (f *Fleet) order(ctx context.Context, bound time.Duration, host drover.HostID, order drover.Order, request, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	return natsbus.Order(ctx, f.conn, host, order, request, answer)
}
