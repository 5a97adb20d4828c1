package fleet

import (
	"crypto/rand"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/natsbus"
)

func wireguardKey() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}

// meshed gives the hosts a mesh.
func (w *world) meshed(n *node) {
	for i, id := range []drover.HostID{"h1", "h2", "h3"} {
		a, err := drover.HostAddress(uint64(i + 101)) // of nobody that joins in these tests
		if err != nil {
			w.t.Fatal(err)
		}
		h := w.hosts[id]
		h.mu.Lock()
		h.mesh = &drover.HostMesh{Number: uint64(i + 1), PrivateAddress: a.String(), PublicKey: "key of " + string(id), Endpoint: "10.0.0.1:51820", MTU: 1380}
		h.mu.Unlock()
	}
	w.eventually("the hosts have a mesh", func() bool {
		hosts, err := n.Hosts(w.t.Context())
		if err != nil {
			return false
		}
		for _, h := range hosts {
			if h.Mesh == nil {
				return false
			}
		}
		return true
	})
}

func TestAPersonGetsAPeerThatIsTheirsAlone(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	want := NewPeer{Name: "ann", Organization: "acme", PublicKey: wireguardKey(), Region: "fra"}
	if _, err := n.CreatePeer(ctx, want); !drover.Is(err, drover.Unavailable) {
		t.Errorf("without a mesh: %v", err)
	}
	w.meshed(n)
	refused := func(what string, code drover.Code, field string, change func(*NewPeer)) {
		t.Helper()
		req := NewPeer{Name: "eve", Organization: "acme", PublicKey: wireguardKey()}
		change(&req)
		if _, err := n.CreatePeer(ctx, req); !drover.Is(err, code) || drover.AsError(err).Field != field {
			t.Errorf("%s: %v, field %q", what, err, drover.AsError(err).Field)
		}
	}
	refused("a bad name", drover.Invalid, "name", func(r *NewPeer) { r.Name = "Eve!" })
	refused("a bad key", drover.Invalid, "public_key", func(r *NewPeer) { r.PublicKey = "secret" })
	refused("a bad network", drover.Invalid, "network", func(r *NewPeer) { r.Network = "-" })
	refused("no such host", drover.NotFound, "host", func(r *NewPeer) { r.Host = "h77" })
	refused("a host of another region", drover.Precondition, "host", func(r *NewPeer) { r.Host, r.Region = "h1", "fra" })

	ann, err := n.CreatePeer(ctx, want)
	if err != nil || ann.Host != "h3" || ann.EndpointKey != "key of h3" || ann.Endpoint == "" || len(ann.AllowedIPs) != 2 {
		t.Fatalf("%+v, %v", ann, err)
	}
	if again, err := n.CreatePeer(ctx, want); err != nil || again.Address != ann.Address {
		t.Errorf("asked again: %+v, %v", again, err)
	}
	refused("a name that is taken", drover.Exists, "name", func(r *NewPeer) { r.Name = "ann" })
	refused("a key that is taken", drover.Exists, "public_key", func(r *NewPeer) { r.PublicKey = ann.PublicKey })
	if _, err := natsbus.NewHostBus(n.conn, "h1").ClaimIdentity(ctx, drover.HostIdentity{Host: "h1", Instance: "i", PublicKey: "hostkey"}); err != nil {
		t.Fatal(err)
	}
	// A host claims the key of a peer that is there, and one that is being made.
	hostbus := natsbus.NewHostBus(n.conn, "h2")
	if _, err := hostbus.ClaimIdentity(ctx, drover.HostIdentity{Host: "h2", Instance: "i2", PublicKey: ann.PublicKey}); !drover.Is(err, drover.Conflict) || !strings.Contains(err.Error(), `"ann"`) {
		t.Errorf("a host with ann's key: %v", err)
	}
	late := drover.WireGuardPeer{Name: "late", Organization: "acme", PublicKey: wireguardKey(), Address: ann.Address, Host: "h1"}
	if _, err := hostbus.ClaimIdentity(ctx, drover.HostIdentity{Host: "h2", Instance: "i2", PublicKey: late.PublicKey}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.state.peers.create(ctx, natsbus.PeerKey("acme", "late"), late); err != nil {
		t.Fatal(err)
	}
	if _, err := n.confirmPeer(ctx, late); !drover.Is(err, drover.Exists) {
		t.Errorf("a peer whose key became a host's meanwhile: %v", err)
	}
	if _, err := n.Peer(ctx, "acme", "late"); !drover.Is(err, drover.NotFound) {
		t.Errorf("it is still there: %v", err)
	}
	// A machine of the organization gets an address of the same network, and another one.
	address, err := n.newAddress(ctx, drover.App{Organization: "acme"})
	if err != nil || address == ann.Address || !strings.HasPrefix(ann.AllowedIPs[0], strings.Join(strings.Split(address, ":")[:3], ":")) {
		t.Errorf("a machine beside %s gets %s: %v", ann.Address, address, err)
	}
	h3 := w.hosts["h3"]
	h3.mu.Lock()
	h3.peers = []drover.MeshPeer{{PublicKey: ann.PublicKey, HandshakeAt: time.Unix(1e9, 0), Received: 7, Sent: 9}}
	h3.mu.Unlock()
	if list, err := n.Peers(ctx, "acme"); err != nil || len(list) != 1 || list[0].Received != 7 || list[0].Sent != 9 || list[0].HandshakeAt.IsZero() || list[0].Problem != "" {
		t.Errorf("listed %+v, %v", list, err)
	}
	if list, err := n.Peers(ctx, "others"); err != nil || len(list) != 0 {
		t.Errorf("others see %+v, %v", list, err)
	}
	if _, err := n.Peer(ctx, "others", "ann"); !drover.Is(err, drover.NotFound) {
		t.Errorf("others find it: %v", err)
	}
	if believed, _ := n.ways(); len(believed) != 1 {
		t.Errorf("hosts are expected to believe %v", believed)
	}

	// Its host is lost.
	h3.halt()
	w.eventually("it is said that the host is lost", func() bool {
		v, err := n.Peer(ctx, "acme", "ann")
		return err == nil && strings.Contains(v.Problem, "drover wireguard move ann")
	})
	moved, err := n.MovePeer(ctx, "acme", "ann", "", "")
	if err != nil || moved.Host == "h3" || moved.Address != ann.Address || moved.PublicKey != ann.PublicKey || moved.Problem != "" {
		t.Errorf("moved %+v, %v", moved, err)
	}

	if _, err := n.RemovePeer(ctx, "acme", "ann"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.RemovePeer(ctx, "acme", "ann"); !drover.Is(err, drover.NotFound) {
		t.Errorf("removed twice: %v", err)
	}
	want.Region = ""
	if back, err := n.CreatePeer(ctx, want); err != nil || back.Address == ann.Address {
		t.Errorf("made anew it has %s, as before: %v", back.Address, err)
	}
}

func TestANetworkPolicyIsCheckedAndKept(t *testing.T) {
	t.Parallel()
	w, n := newWorld(t)
	ctx := t.Context()
	for _, app := range []drover.App{{Name: "web"}, {Name: "away", Organization: "others"}} {
		if _, err := n.CreateApp(ctx, app); err != nil {
			t.Fatal(err)
		}
	}
	good := func() drover.NetworkPolicy {
		return drover.NetworkPolicy{Name: "only-web", Selector: drover.PolicySelector{All: true}, Rules: []drover.PolicyRule{{Action: "Allow", Direction: "ingress",
			Ports: []drover.PolicyPort{{Protocol: "TCP", Port: 5432}}, Peers: []drover.PolicyPeer{{App: "web"}, {CIDR: "fdaa:0:1:0:7::2"}}}}}
	}
	for field, change := range map[string]func(*drover.NetworkPolicy){
		"name":                       func(p *drover.NetworkPolicy) { p.Name = "" },
		"selector":                   func(p *drover.NetworkPolicy) { p.Selector.All = false },
		"rules":                      func(p *drover.NetworkPolicy) { p.Rules = nil },
		"rules[0].action":            func(p *drover.NetworkPolicy) { p.Rules[0].Action = "log" },
		"rules[0].direction":         func(p *drover.NetworkPolicy) { p.Rules[0].Direction = "up" },
		"rules[0].ports[0].protocol": func(p *drover.NetworkPolicy) { p.Rules[0].Ports[0].Protocol = "sctp" },
		"rules[0].ports[0].port":     func(p *drover.NetworkPolicy) { p.Rules[0].Ports[0].Port = 70000 },
		"rules[0].ports[0].end_port": func(p *drover.NetworkPolicy) { p.Rules[0].Ports[0].EndPort = 80 },
		"rules[0].peers[0].app":      func(p *drover.NetworkPolicy) { p.Rules[0].Peers[0].App = "away" },
		"rules[0].peers[1].cidr":     func(p *drover.NetworkPolicy) { p.Rules[0].Peers[1].CIDR = "10.0.0.0/8" },
		"rules[0].peers[1]":          func(p *drover.NetworkPolicy) { p.Rules[0].Peers[1].App = "web" },
	} {
		p := good()
		change(&p)
		if _, err := n.SetPolicy(ctx, "shop", p); !drover.Is(err, drover.Invalid) || drover.AsError(err).Field != field {
			t.Errorf("%s: %v, field %q", field, err, drover.AsError(err).Field)
		}
	}
	made, err := n.SetPolicy(ctx, "shop", good())
	if err != nil || made.ID == "" || made.Rules[0].Action != "allow" || made.Rules[0].Ports[0].Protocol != "tcp" || made.Rules[0].Peers[1].CIDR != "fdaa:0:1:0:7::2/128" {
		t.Fatalf("%+v, %v", made, err)
	}
	next := good()
	next.Rules[0].Peers = nil
	if again, err := n.SetPolicy(ctx, "shop", next); err != nil || again.ID != made.ID || len(again.Rules[0].Peers) != 0 {
		t.Errorf("replaced %+v, %v", again, err)
	}
	if all, err := n.Policies(ctx, "shop"); err != nil || len(all) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := n.Policy(ctx, "shop", "other"); !drover.Is(err, drover.NotFound) {
		t.Error(err)
	}
	if gone, err := n.DeletePolicy(ctx, "shop", made.ID); err != nil || gone.Name != "only-web" {
		t.Errorf("%+v, %v", gone, err)
	}
	if all, err := n.Policies(ctx, "shop"); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	// With the app its policies go: who gets its name gets none.
	if _, err := n.SetPolicy(ctx, "web", next); err != nil {
		t.Fatal(err)
	}
	w.destroyApp(n, "web")
	if all, err := n.Policies(ctx, "web"); err != nil || len(all) != 0 {
		t.Errorf("of an app that is gone: %+v, %v", all, err)
	}
}
