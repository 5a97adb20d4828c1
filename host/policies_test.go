package host

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"

	"drover"
)

// policed is a network that remembers what it was told, in order.
type policed struct {
	order    []string
	policies map[drover.MachineID]drover.MachinePolicy
}

func (n *policed) Police(_ context.Context, id drover.MachineID, _ string, p drover.MachinePolicy) error {
	n.order, n.policies[id] = append(n.order, "police"), p
	return nil
}

func (n *policed) Attach(context.Context, drover.MachineID, string) (string, error) {
	n.order = append(n.order, "attach")
	return "tap", nil
}

func (n *policed) Detach(context.Context, drover.MachineID) error { return nil }

func (n *policed) Attached(context.Context) (ids []drover.MachineID, err error) {
	for id := range n.policies {
		ids = append(ids, id)
	}
	return ids, nil
}

// policing is an agent with one machine, db of the app "db".
func policing(t *testing.T, dir string) (*policer, *policed, drover.Machine) {
	t.Helper()
	network := &policed{policies: map[drover.MachineID]drover.MachinePolicy{}}
	a := &Agent{cfg: Config{ID: "h1", DataDir: dir, Routes: &fakeRoutes{}, Network: network, Log: slog.New(slog.DiscardHandler)}, machines: map[drover.MachineID]*machine{}}
	a.policies = newPolicer(a)
	if err := a.policies.load(); err != nil {
		t.Fatal(err)
	}
	m := drover.Machine{ID: "db", App: "db", Address: m1Address.String(), Config: drover.MachineConfig{Metadata: map[string]string{"role": "primary"}}}
	known := &machine{id: m.ID, agent: a}
	known.rec.Store(&records{Desired: &drover.ApplyRequest{Machine: m}})
	a.machines[m.ID] = known
	return a.policies, network, m
}

func webOnly() *drover.AppPolicies {
	return &drover.AppPolicies{App: "db", Policies: []drover.NetworkPolicy{{ID: "p", Selector: drover.PolicySelector{Metadata: map[string]string{"role": "primary"}},
		Rules: []drover.PolicyRule{{Action: drover.PolicyAllow, Direction: drover.PolicyIngress, Ports: []drover.PolicyPort{{Protocol: "tcp", Port: 5432}},
			Peers: []drover.PolicyPeer{{App: "web"}}}}}}}
}

func peersOf(p drover.MachinePolicy) []netip.Prefix {
	if p.Ingress == nil || len(p.Ingress.Allow) != 1 {
		return nil
	}
	return p.Ingress.Allow[0].Peers
}

func TestAPolicyHoldsBeforeTheLinkAndFollowsTheApps(t *testing.T) {
	p, network, m := policing(t, t.TempDir())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(p.ruled("db", webOnly()))
	must(p.ruled("", nil))
	must(p.described("w1", &drover.Machine{ID: "w1", App: "web", Address: "fdaa:0:1:0:2::2"}))
	must(p.described("x1", &drover.Machine{ID: "x1", App: "web", Address: "fdaa:0:2:0:1::2"})) // of another network
	must(p.described("", nil))
	if _, err := p.agent.link(t.Context(), m, m.Address); err != nil || len(network.order) != 2 || network.order[0] != "police" {
		t.Fatalf("%v, %v", network.order, err)
	}
	if got := peersOf(network.policies["db"]); len(got) != 1 || got[0].String() != "fdaa:0:1:0:2::/112" {
		t.Fatalf("let in are %v", got)
	}
	must(p.described("w2", &drover.Machine{ID: "w2", App: "web", Address: "fdaa:0:1:0:3::2"}))
	must(p.applyAll(t.Context()))
	if got := peersOf(network.policies["db"]); len(got) != 2 {
		t.Errorf("with another machine of the app let in are %v", got)
	}
	told := len(network.order)
	must(p.applyAll(t.Context()))
	if len(network.order) != told {
		t.Error("what has not changed is told again")
	}
	must(p.described("w1", nil))
	must(p.described("db", &drover.Machine{ID: "db", App: "db", Address: m.Address}))
	must(p.applyAll(t.Context()))
	if got := network.policies["db"]; !got.Open() {
		t.Errorf("a machine that the policy selects no more has %+v", got)
	}
	must(p.described("db", &m))
	must(p.ruled("db", nil))
	must(p.applyAll(t.Context()))
	if got := network.policies["db"]; !got.Open() {
		t.Errorf("without policies it has %+v", got)
	}
}

func TestAHostWithoutTheBusGoesByThePolicyThatItKnew(t *testing.T) {
	dir := t.TempDir()
	p, _, m := policing(t, dir)
	for _, err := range []error{p.ruled("db", webOnly()), p.ruled("", nil), p.described("w1", &drover.Machine{ID: "w1", App: "web", Address: "fdaa:0:1:0:2::2"}), p.described("", nil), p.enforce(t.Context(), m)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	again, network, _ := policing(t, dir)
	if _, err := again.agent.link(t.Context(), m, m.Address); err != nil || len(peersOf(network.policies["db"])) != 1 {
		t.Errorf("%v, %+v", err, network.policies)
	}
	// Of a machine that this host never had it knows nothing: it does not start it open.
	synctest.Test(t, func(t *testing.T) {
		fresh, network, m := policing(t, t.TempDir())
		if _, err := fresh.agent.link(t.Context(), m, m.Address); !drover.Is(err, drover.Unavailable) || len(network.order) > 0 {
			t.Errorf("%v, %v", err, network.order)
		}
	})
}
