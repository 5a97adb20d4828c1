package host

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"drover"
)

// Mesh is what carries packets between the machines of different hosts (network.Client). Unavailable when it does not answer.
type Mesh interface {
	Status(ctx context.Context) (drover.MeshStatus, error)
	// Routes lists by which hosts it reaches machines, after an address.
	Routes(ctx context.Context, after string) (drover.MeshRoutesAnswer, error)
	// Peers tells what was seen of people's peers.
	Peers(ctx context.Context) (drover.MeshPeersAnswer, error)
	// Rotate lets the host get another key; while it is getting one, that is what is told of.
	Rotate(ctx context.Context, req drover.MeshRotateRequest) (drover.MeshKey, error)
	// Cancel lets the host keep the key that it has. Precondition when it is about to have no other.
	Cancel(ctx context.Context, req drover.MeshCancelRequest) (drover.MeshKey, error)
}

// meshEvery is how often the mesh is asked how it is.
const meshEvery = 2 * time.Second

// meshLoop keeps what the mesh says of itself, and makes conditions of what is wrong, until ctx ends.
func (a *Agent) meshLoop(ctx context.Context) {
	if a.cfg.Mesh == nil {
		return
	}
	raised := map[conditionKey]bool{}
	for ctx.Err() == nil {
		s, err := call(ctx, a.cfg.Mesh.Status)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s = a.meshNow() // who this host is does not change by that
			s.Problem, s.Links, s.RoutesDigest = err.Error(), nil, ""
		}
		if s.NameTaken {
			a.cfg.Log.Error("the agent stops: it must do nothing in another host's name; machines and storage run on", "err", s.Problem)
			a.stop(drover.Errorf(drover.Conflict, "%s", s.Problem))
			return
		}
		a.mesh.Store(&s)
		raised = a.reportMesh(s, raised)
		pause(ctx, meshEvery)
	}
}

// reportMesh raises what is wrong now and withdraws what was raised before and is not any more.
func (a *Agent) reportMesh(s drover.MeshStatus, before map[conditionKey]bool) map[conditionKey]bool {
	now := map[conditionKey]bool{}
	for _, f := range meshFindings(s) {
		now[f.conditionKey] = true
		a.reportCondition(f.Code, f.Severity, f.Subject, f.detail)
	}
	for key := range before {
		if !now[key] {
			a.withdrawCondition(key.Code, key.Severity, key.Subject)
		}
	}
	return now
}

type meshFinding struct {
	conditionKey
	detail string
}

// meshFindings says what is wrong with a mesh.
func meshFindings(s drover.MeshStatus) []meshFinding {
	var out []meshFinding
	if s.Problem != "" {
		out = append(out, meshFinding{conditionKey{drover.MeshDown, drover.SeverityCritical, ""}, s.Problem})
	}
	for _, l := range s.Links {
		if l.Bad {
			out = append(out, meshFinding{conditionKey{drover.MeshLinkBad, drover.SeverityWarning, string(l.Host)}, l.Text})
		}
	}
	if s.Key != nil && s.Key.Rotation.Running() && !s.Key.Rotation.Canceled() {
		for _, h := range s.Key.WaitsFor {
			out = append(out, meshFinding{conditionKey{drover.MeshKeyWaits, drover.SeverityWarning, string(h)},
				fmt.Sprintf("host %s does not send by this host's next key, which %s asked for: the present one stays as long", h, s.Key.Rotation.By)})
		}
	}
	return out
}

// meshNow is what the mesh said last.
func (a *Agent) meshNow() drover.MeshStatus {
	if s := a.mesh.Load(); s != nil {
		return *s
	}
	return drover.MeshStatus{}
}

// routeAddress is where other hosts send packets for machines of this one.
func (a *Agent) routeAddress() string {
	if m := a.meshNow().Mesh; m != nil {
		return m.PrivateAddress
	}
	return ""
}

func (a *Agent) meshStatus(ctx context.Context, _ drover.Empty) (drover.MeshStatus, error) {
	if a.cfg.Mesh == nil {
		return drover.MeshStatus{}, a.noMesh()
	}
	return a.cfg.Mesh.Status(ctx)
}

func (a *Agent) meshPeers(ctx context.Context, _ drover.Empty) (drover.MeshPeersAnswer, error) {
	if a.cfg.Mesh == nil {
		return drover.MeshPeersAnswer{}, a.noMesh()
	}
	return a.cfg.Mesh.Peers(ctx)
}

func (a *Agent) rotateKey(ctx context.Context, req drover.MeshRotateRequest) (drover.MeshKey, error) {
	if a.cfg.Mesh == nil {
		return drover.MeshKey{}, a.noMesh()
	}
	return a.cfg.Mesh.Rotate(ctx, req)
}

func (a *Agent) cancelKey(ctx context.Context, req drover.MeshCancelRequest) (drover.MeshKey, error) {
	if a.cfg.Mesh == nil {
		return drover.MeshKey{}, a.noMesh()
	}
	return a.cfg.Mesh.Cancel(ctx, req)
}

func (a *Agent) noMesh() error {
	return drover.Errorf(drover.Precondition, "host %q has no mesh: its machines have the VMM's user networking, and reach no others", a.cfg.ID)
}

// meshRoutes lists where packets go. What the kernel leads into the mesh counts with the mesh's own table: a route that only one of them has goes
// wrong.
func (a *Agent) meshRoutes(ctx context.Context, req drover.MeshRoutesRequest) (drover.MeshRoutesAnswer, error) {
	if a.cfg.Mesh == nil || a.cfg.Routes == nil {
		return drover.MeshRoutesAnswer{}, a.noMesh()
	}
	var all []drover.MeshRoute
	for page := (drover.MeshRoutesAnswer{More: true}); page.More; all = append(all, page.Routes...) {
		after := ""
		if len(all) > 0 {
			after = all[len(all)-1].Machine
		}
		var err error
		if page, err = a.cfg.Mesh.Routes(ctx, after); err != nil {
			return page, err
		}
	}
	kernel, err := a.cfg.Routes.List(ctx)
	if err != nil {
		return drover.MeshRoutesAnswer{}, err
	}
	for _, r := range all {
		delete(kernel, addressOrNone(r.Machine))
	}
	for machine := range kernel {
		all = append(all, drover.MeshRoute{Machine: machine.String()})
	}
	after := addressOrNone(req.After)
	all = slices.DeleteFunc(all, func(r drover.MeshRoute) bool { return after.IsValid() && !after.Less(addressOrNone(r.Machine)) })
	slices.SortFunc(all, func(x, y drover.MeshRoute) int { return addressOrNone(x.Machine).Compare(addressOrNone(y.Machine)) })
	most := min(len(all), drover.MaxMeshRoutes)
	return drover.MeshRoutesAnswer{Routes: all[:most], More: len(all) > most}, nil
}

func addressOrNone(text string) netip.Addr {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return a
}
