package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"drover"
	"drover/api/graphql"
	"drover/apiv1"
)

// app is an app with everything that clients ask of one. What they cannot do without is never null: the organization, and the lists.
func (g *graph) app(a apiv1.App) graphql.Object {
	name := string(a.Name)
	return graphql.Object{Type: "App", Also: []string{"AppCompact", "Node"},
		Values: map[string]any{
			"id": name, "name": name, "status": a.Status, "deployed": a.Status == "deployed", "network": a.Network, "platformVersion": "machines",
			"internalNumericId": numericID(name), // a number, unlike that of an organization
			"organization":      g.organization(a.Organization.Slug),
			"createdAt":         a.CreatedAt,
			// A fleet has none: see noEgress.
			"egressIpAddresses":   list([]graphql.Object{}),
			"limitedAccessTokens": list([]graphql.Object{}), "addOns": list([]graphql.Object{}),
		},
		Fields: map[string]graphql.Field{
			"image":           func(_ context.Context, args graphql.Args) (any, error) { return g.image(a.Name, args.String("ref")) },
			"machines":        value(func() (any, error) { return g.machinesOf(name) }),
			"hostIssues":      value(func() (any, error) { return g.hostIssues(name) }),
			"ipAddresses":     value(func() (any, error) { nodes, _, err := g.addresses(name); return list(nodes), err }),
			"sharedIpAddress": value(func() (any, error) { _, shared, err := g.addresses(name); return shared, err }),

			"currentRelease":            value(func() (any, error) { return g.currentRelease(a.Name) }),
			"currentReleaseUnprocessed": value(func() (any, error) { return g.currentRelease(a.Name) }),
			"releases":                  g.releases(a.Name),
			"releasesUnprocessed":       g.releases(a.Name),
		}}
}

func (g *graph) image(app drover.AppName, ref string) (any, error) {
	if err := g.h.mayNameImage(g.c, app, "ref", ref); err != nil {
		return nil, err
	}
	found, err := g.h.backend.ResolveImage(g.c.ctx(), ref)
	if err != nil {
		return nil, err
	}
	return graphql.Object{Type: "Image", Values: map[string]any{"id": found.Digest, "digest": found.Digest, "ref": imageName(found.ImageRef),
		"registry": found.Registry, "repository": found.Repository, "tag": found.Tag, "label": found.Tag,
		// a text: it may be larger than a number of GraphQL
		"compressedSize": sizeText(found.CompressedSize), "compressedSizeFull": sizeText(found.CompressedSize)}}, nil
}

func sizeText(n drover.Bytes) string { return strconv.FormatInt(int64(n), 10) }

// imageName writes an image by its tag or, without one, its digest.
func imageName(r drover.ImageRef) string {
	name := r.Repository
	if r.Registry != "" {
		name = r.Registry + "/" + r.Repository
	}
	if r.Tag != "" {
		return name + ":" + r.Tag
	}
	return name + "@" + r.Digest
}

func (g *graph) machineForms(app string) ([]apiv1.Machine, error) {
	var machines []apiv1.Machine
	err := g.h.inside(g.c, http.MethodGet, prefix+"/apps/"+app+"/machines", nil, &machines)
	return machines, err
}

func (g *graph) machinesOf(app string) (any, error) {
	machines, err := g.machineForms(app)
	if err != nil {
		return nil, err
	}
	nodes := []graphql.Object{}
	for _, m := range machines {
		nodes = append(nodes, g.machine(m))
	}
	return list(nodes), nil
}

// hostIssues has one issue for each host that does not answer and has machines of the app.
func (g *graph) hostIssues(app string) (any, error) {
	machines, err := g.machineForms(app)
	if err != nil {
		return nil, err
	}
	affected, order := map[drover.HostID][]string{}, []drover.HostID{}
	for _, m := range machines {
		if m.HostStatus == drover.HostOK || m.Host == "" {
			continue
		}
		if affected[m.Host] == nil {
			order = append(order, m.Host)
		}
		affected[m.Host] = append(affected[m.Host], string(m.ID))
	}
	nodes := []graphql.Object{}
	for _, id := range order {
		host, err := g.h.backend.Host(g.c.ctx(), id)
		if err != nil && !drover.Is(err, drover.NotFound) {
			return nil, err
		}
		nodes = append(nodes, graphql.Object{Type: "HostIssue", Values: map[string]any{"internalId": string(id), "createdAt": host.SeenAt.UTC(),
			"updatedAt": g.h.now().UTC().Truncate(time.Second),
			"message":   fmt.Sprintf("Host %s does not answer; it has %s. Its machines may run on: what is shown of them is old.", id, strings.Join(affected[id], ", "))}})
	}
	return list(nodes), nil
}

// graphAddress is an address as the routes of ip_assignments have it.
type graphAddress struct {
	IP          string    `json:"ip"`
	Region      string    `json:"region"`
	ServiceName string    `json:"service_name"`
	Shared      bool      `json:"shared"`
	CreatedAt   time.Time `json:"created_at"`
}

// kind is the word of GraphQL for what sort of address it is.
func (a graphAddress) kind() string {
	ip, err := netip.ParseAddr(a.IP)
	switch {
	case a.Shared:
		return "shared_v4"
	case err == nil && ip.Is6() && ip.IsPrivate():
		return "private_v6"
	case err == nil && ip.Is6():
		return "v6"
	}
	return "v4"
}

func (g *graph) address(a graphAddress) graphql.Object {
	return graphql.Object{Type: "IPAddress", Values: map[string]any{"id": a.IP, "address": a.IP, "type": a.kind(), "region": a.Region,
		"serviceName": a.ServiceName, "createdAt": a.CreatedAt.UTC()}}
}

// addresses lists an app's own addresses, and the one that it shares; nil where it has none.
func (g *graph) addresses(app string) (nodes []graphql.Object, shared any, err error) {
	var answer struct {
		IPs []graphAddress `json:"ips"`
	}
	err = g.h.inside(g.c, http.MethodGet, addressesPath(app), nil, &answer)
	if drover.Is(err, drover.NotFound) {
		err = nil
	}
	nodes = []graphql.Object{}
	for _, a := range answer.IPs {
		if a.Shared {
			shared = a.IP
			continue
		}
		nodes = append(nodes, g.address(a))
	}
	return nodes, shared, err
}

func addressesPath(app string) string {
	return prefix + "/apps/" + url.PathEscape(app) + "/ip_assignments"
}

// release is a release with what clients read of one.
func (g *graph) release(r drover.Release) graphql.Object {
	form := releaseForm(r)
	o := graphql.Object{Type: "Release", Also: []string{"ReleaseUnprocessed"}, Values: map[string]any{
		"id": r.ID, "version": r.Version, "stable": form.Stable, "inProgress": form.InProgress, "status": r.Status, "description": r.Description, "reason": "",
		"deploymentStrategy": r.Strategy, "imageRef": r.Image, "createdAt": r.CreatedAt.UTC(), "evaluationId": "",
		"user": graphql.Object{Type: "User", Values: map[string]any{"id": r.Actor, "email": r.Actor, "name": r.Actor}}}}
	var definition any
	if len(r.Definition) > 0 && json.Unmarshal(r.Definition, &definition) == nil {
		o.Values["configDefinition"] = definition
	}
	return o
}

func (g *graph) currentRelease(app drover.AppName) (any, error) {
	r, err := g.h.currentRelease(g.c, app)
	if r == nil || err != nil {
		return nil, err
	}
	return g.release(*r), nil
}

func (g *graph) releases(app drover.AppName) graphql.Field {
	return func(_ context.Context, args graphql.Args) (any, error) {
		all, err := g.h.backend.Releases(g.c.ctx(), app)
		if err != nil {
			return nil, err
		}
		nodes, first, status := []graphql.Object{}, max(args.Int("first", 25), 0), args.String("status")
		for _, r := range all {
			if len(nodes) < first && (status == "" || status == string(r.Status)) {
				nodes = append(nodes, g.release(r))
			}
		}
		return list(nodes), nil
	}
}
