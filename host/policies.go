package host

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"drover"
	"drover/internal/durable"
	"drover/route"
)

const (
	policiesVersion = 1
	// policyWait is how long a machine's start waits for the policies of the fleet, where this host has none of its own to go by.
	policyWait = 10 * time.Second
)

// policiesFile is what held for the machines of this host when it was last known: a start without the bus goes by it.
type policiesFile struct {
	Version  int                                       `json:"version"`
	Machines map[drover.MachineID]drover.MachinePolicy `json:"machines"`
}

// policer keeps what the machines of this host may receive and send as the fleet says.
type policer struct {
	agent *Agent
	wake  chan struct{}

	mu       sync.Mutex
	policies map[drover.AppName][]drover.NetworkPolicy
	members  map[drover.MachineID]route.Member
	ofApp    map[drover.AppName]map[drover.MachineID]bool
	// heard are the lists that were told in full; complete is closed when both were.
	heard    map[string]bool
	complete chan struct{}
	// stored is what held when it was last known.
	stored map[drover.MachineID]drover.MachinePolicy

	// applying is held while a machine's policy is worked out and set: of two at once the older one would win. applied is what the kernel has been
	// told by this process; it guards that too.
	applying sync.Mutex
	applied  map[drover.MachineID]drover.MachinePolicy
}

func newPolicer(a *Agent) *policer {
	return &policer{agent: a, wake: make(chan struct{}, 1), policies: map[drover.AppName][]drover.NetworkPolicy{}, members: map[drover.MachineID]route.Member{},
		ofApp: map[drover.AppName]map[drover.MachineID]bool{}, heard: map[string]bool{}, complete: make(chan struct{}),
		stored: map[drover.MachineID]drover.MachinePolicy{}, applied: map[drover.MachineID]drover.MachinePolicy{}}
}

func (p *policer) path() string { return filepath.Join(p.agent.cfg.DataDir, "policies.json") }

// load begins with what an earlier agent knew. What cannot be read stops the agent: its machines would be open.
func (p *policer) load() error {
	var file policiesFile
	err := durable.ReadJSON(p.path(), &file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && file.Version != policiesVersion {
		err = drover.Errorf(drover.Precondition, "it has version %d, this program knows version %d", file.Version, policiesVersion)
	}
	if err != nil {
		return drover.Errorf(drover.Precondition, "cannot read which network policies hold here, in %s: %w", p.path(), err).
			WithHint("if the file is lost, remove it: the fleet tells the policies again before a machine starts")
	}
	if file.Machines != nil {
		p.stored = file.Machines
	}
	return nil
}

// policyLoop applies what changes until ctx ends. While the bus is away policies stay what they are.
func (a *Agent) policyLoop(ctx context.Context) {
	p := a.policies
	if a.cfg.Routes == nil {
		return // machines of this host are in no network
	}
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() {
		for ctx.Err() == nil {
			if err := a.cfg.Bus.FollowPolicies(ctx, p.ruled); err != nil && ctx.Err() == nil {
				a.cfg.Log.Warn("cannot follow the network policies", "err", err)
			}
			pause(ctx, routeRetry)
		}
	})
	for ctx.Err() == nil {
		if err := p.applyAll(ctx); err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("a network policy cannot be applied; it is tried again", "err", err)
			pause(ctx, routeRetry)
			continue
		}
		select {
		case <-ctx.Done():
		case <-p.wake:
		}
	}
}

func (p *policer) kick() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// all notes that a list was told in full.
func (p *policer) all(list string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := len(p.heard)
	p.heard[list] = true
	if before == 1 && len(p.heard) == 2 {
		close(p.complete)
	}
	p.kick()
	return nil
}

// ruled takes in the policies of an app, nil for none.
func (p *policer) ruled(app drover.AppName, policies *drover.AppPolicies) error {
	if app == "" {
		return p.all("policies")
	}
	p.mu.Lock()
	delete(p.policies, app)
	if policies != nil {
		p.policies[app] = policies.Policies
	}
	p.mu.Unlock()
	p.kick()
	return nil
}

// described takes in a machine's record, nil when it is gone.
func (p *policer) described(id drover.MachineID, m *drover.Machine) error {
	if id == "" {
		return p.all("machines")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old, had := p.members[id]
	if had {
		delete(p.ofApp[old.App], id)
		delete(p.members, id)
	}
	if m != nil {
		now := memberOf(*m)
		if p.ofApp[now.App] == nil {
			p.ofApp[now.App] = map[drover.MachineID]bool{}
		}
		p.ofApp[now.App][id] = true
		p.members[id] = now
		if had && reflect.DeepEqual(old, now) {
			return nil
		}
	}
	if len(p.policies) > 0 {
		p.kick()
	}
	return nil
}

func memberOf(m drover.Machine) route.Member {
	a, err := netip.ParseAddr(m.Address)
	if err != nil {
		a = netip.Addr{}
	}
	return route.Member{App: m.App, Address: a, Meta: m.Config.Metadata}
}

// policyOf works out what holds for a machine; false while this host does not know.
func (p *policer) policyOf(id drover.MachineID, m drover.Machine) (drover.MachinePolicy, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.heard) < 2 {
		policy, ok := p.stored[id]
		return policy, ok
	}
	member := memberOf(m)
	if told, ok := p.members[id]; ok {
		member.Meta = told.Meta // a label may change while the machine runs
	}
	return route.PolicyOf(member, p.policies[m.App], func(app drover.AppName) (all []netip.Addr) {
		for id := range p.ofApp[app] {
			all = append(all, p.members[id].Address)
		}
		return all
	}), true
}

// enforce sets a machine's policy, before it has its link. It waits for the fleet where this host does not know.
func (p *policer) enforce(ctx context.Context, m drover.Machine) error {
	if p.agent.cfg.Routes == nil {
		return nil
	}
	if _, ok := p.policyOf(m.ID, m); !ok {
		wait := time.NewTimer(policyWait)
		defer wait.Stop()
		select {
		case <-p.complete:
		case <-ctx.Done():
		case <-wait.C:
		}
	}
	p.applying.Lock()
	defer p.applying.Unlock()
	policy, ok := p.policyOf(m.ID, m)
	if !ok {
		return drover.Errorf(drover.Unavailable, "host %q does not know yet what machine %q may receive and send: it has not heard of the fleet's network policies", p.agent.cfg.ID, m.ID)
	}
	return p.setLocked(ctx, m, policy)
}

// setLocked makes a policy hold: first durably, then in the kernel. It needs applying.
func (p *policer) setLocked(ctx context.Context, m drover.Machine, policy drover.MachinePolicy) error {
	p.mu.Lock()
	old, had := p.stored[m.ID]
	changed := !had || !reflect.DeepEqual(old, policy)
	p.stored[m.ID] = policy
	for id := range p.stored {
		if id != m.ID && !p.agent.knows(id) {
			delete(p.stored, id)
			delete(p.applied, id)
		}
	}
	var err error
	if changed {
		if err = durable.WriteJSON(p.path(), policiesFile{policiesVersion, p.stored}, 0o600); err != nil {
			if delete(p.stored, m.ID); had {
				p.stored[m.ID] = old
			}
		}
	}
	p.mu.Unlock()
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot store the network policy of machine %q: %w", m.ID, err)
	}
	_, err = call(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, p.agent.cfg.Network.Police(ctx, m.ID, m.Address, policy)
	})
	if err == nil {
		p.applied[m.ID] = policy
	}
	return err
}

// applyAll sets what has changed for the machines that have a link.
func (p *policer) applyAll(ctx context.Context) error {
	ids, err := call(ctx, p.agent.cfg.Network.Attached)
	if err != nil {
		return err
	}
	var failed []error
	for _, id := range ids {
		m, err := p.agent.machine(id)
		if err != nil {
			continue // a leftover: it is swept
		}
		if d := m.rec.Load().Desired; d != nil {
			failed = append(failed, p.refresh(ctx, d.Machine))
		}
	}
	return errors.Join(failed...)
}

func (p *policer) refresh(ctx context.Context, m drover.Machine) error {
	p.applying.Lock()
	defer p.applying.Unlock()
	policy, ok := p.policyOf(m.ID, m)
	if applied, was := p.applied[m.ID]; !ok || was && reflect.DeepEqual(applied, policy) {
		return nil
	}
	return p.setLocked(ctx, m, policy)
}

// link gives a machine its link, with the address or without one, and before that its policy.
func (a *Agent) link(ctx context.Context, m drover.Machine, address string) (string, error) {
	if err := a.policies.enforce(ctx, m); err != nil {
		return "", err
	}
	return call(ctx, func(ctx context.Context) (string, error) { return a.cfg.Network.Attach(ctx, m.ID, address) })
}
