package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"drover"
	"drover/api/graphql"
	"drover/apiv1"
)

// query is where queries begin.
func (g *graph) query() graphql.Object {
	return graphql.Object{Type: "Query",
		Values: map[string]any{"canPerformBluegreenDeployment": true},
		Fields: map[string]graphql.Field{
			"app": func(_ context.Context, args graphql.Args) (any, error) {
				app, err := g.appNamed(args.String("name"))
				if err != nil {
					return nil, err
				}
				return g.app(app), nil
			},
			"apps": func(_ context.Context, args graphql.Args) (any, error) { return g.apps(args) },
			"organizations": value(func() (any, error) {
				slugs, err := g.h.organizations(g.c)
				var nodes []graphql.Object
				for _, slug := range slugs {
					nodes = append(nodes, g.organization(slug))
				}
				return list(nodes), err
			}),
			"organization": func(_ context.Context, args graphql.Args) (any, error) {
				slug := args.String("slug")
				if slug == "" {
					slug = args.String("id")
				}
				if err := g.h.findOrganization(g.c, slug); err != nil {
					return nil, err
				}
				return g.organization(slug), nil
			},
			"machine":            func(_ context.Context, args graphql.Args) (any, error) { return g.machineOf(args.String("machineId")) },
			"volume":             func(_ context.Context, args graphql.Args) (any, error) { return g.volumeOf(args.String("id")) },
			"platform":           value(g.platform),
			"nearestRegion":      value(g.nearestRegion),
			"viewer":             value(g.viewer),
			"latestImageDetails": func(context.Context, graphql.Args) (any, error) { return nil, unknownRepository() },
		}}
}

// unknownRepository says that nobody tells of newer images here. Clients know the words, and go on.
func unknownRepository() error { return drover.Errorf(drover.NotFound, "Unknown repository") }

// maxApps is how many apps a page has at most.
const maxApps = 500

// apps pages through the apps that the client may see; a cursor is the name of the last one.
func (g *graph) apps(args graphql.Args) (any, error) {
	path := prefix + "/apps"
	if org := args.String("organizationId"); org != "" {
		if err := g.h.findOrganization(g.c, org); err != nil {
			return nil, err
		}
		path += "?org_slug=" + org
	}
	var answer apiv1.ListAppsResponse
	if err := g.h.inside(g.c, http.MethodGet, path, nil, &answer); err != nil {
		return nil, err
	}
	first := min(max(args.Int("first", maxApps), 1), maxApps)
	nodes, more, cursor := []graphql.Object{}, false, args.String("after")
	for _, a := range answer.Apps {
		if string(a.Name) <= cursor {
			continue
		}
		if len(nodes) == first {
			more = true
			break
		}
		nodes = append(nodes, g.app(apiv1.App{ID: a.ID, Name: a.Name, Organization: a.Organization, Status: a.Status, MachineCount: a.MachineCount,
			VolumeCount: a.VolumeCount, CreatedAt: a.CreatedAt}))
	}
	if len(nodes) > 0 {
		cursor, _ = nodes[len(nodes)-1].Values["name"].(string)
	}
	return graphql.Object{Type: "AppConnection", Values: map[string]any{"nodes": nodes, "totalCount": len(answer.Apps),
		"pageInfo": graphql.Object{Type: "PageInfo", Values: map[string]any{"hasNextPage": more, "endCursor": cursor}}}}, nil
}

func (g *graph) organization(slug string) graphql.Object {
	role := "member"
	if g.c.principal.Operator {
		role = "admin"
	}
	kind := "SHARED"
	if slug == defaultOrganization {
		kind = "PERSONAL"
	}
	return graphql.Object{Type: "Organization", Values: map[string]any{
		"id": slug, "slug": slug, "rawSlug": slug, "name": slug, "type": kind, "viewerRole": role, "paidPlan": true, "billable": true,
		// a text, unlike that of an app
		"internalNumericId": strconv.FormatUint(numericID(slug), 10),
		"addOns":            list([]graphql.Object{}), "limitedAccessTokens": list([]graphql.Object{}),
	}, Fields: map[string]graphql.Field{
		"wireGuardPeers": value(func() (any, error) { return g.peers(slug) }),
		"wireGuardPeer": func(_ context.Context, args graphql.Args) (any, error) {
			var p drover.WireGuardView
			err := g.h.inside(g.c, http.MethodGet, prefix+"/wireguard_peers/"+url.PathEscape(args.String("name"))+"?org_slug="+url.QueryEscape(slug), nil, &p)
			return g.peer(p), err
		},
	}}
}

func (g *graph) viewer() (any, error) {
	name := g.c.principal.Name
	return graphql.Object{Type: "User", Also: []string{"Principal"}, Values: map[string]any{"id": name, "email": name, "name": name, "enablePaidHobby": false}}, nil
}

// machineOf finds a machine of any app that the client may see.
func (g *graph) machineOf(id string) (any, error) {
	none := drover.Errorf(drover.NotFound, "Could not find Machine %q", id)
	if !drover.ValidMachineID(id) {
		return nil, none
	}
	view, err := g.h.backend.Machine(g.c.ctx(), "", drover.MachineID(id))
	if drover.Is(err, drover.NotFound) {
		return nil, none
	}
	if err != nil {
		return nil, err
	}
	app, err := g.appNamed(string(view.Machine.App))
	if drover.Is(err, drover.NotFound) {
		return nil, none
	}
	if err != nil {
		return nil, err
	}
	o := g.machine(machineForm(view))
	o.Values["app"] = g.app(app)
	return o, nil
}

// volumeOf finds a volume of any app that the client may see.
func (g *graph) volumeOf(id string) (any, error) {
	none := drover.Errorf(drover.NotFound, "Could not find Volume %q", id)
	if !validVolumeID(id) {
		return nil, none
	}
	name, err := g.h.backend.AppOfVolume(g.c.ctx(), drover.VolumeID(id))
	if drover.Is(err, drover.NotFound) {
		return nil, none
	}
	if err != nil {
		return nil, err
	}
	app, err := g.appNamed(string(name))
	if drover.Is(err, drover.NotFound) {
		return nil, none
	}
	if err != nil {
		return nil, err
	}
	return graphql.Object{Type: "Volume", Also: []string{"Node"}, Values: map[string]any{"id": id, "app": g.app(app)}}, nil
}

// machine is a machine of an app, without the app.
func (g *graph) machine(m apiv1.Machine) graphql.Object {
	return graphql.Object{Type: "Machine", Also: []string{"GqlMachine", "Node"}, Values: map[string]any{"id": m.ID, "name": m.Name, "state": m.State, "region": m.Region,
		"instanceId": m.InstanceID, "createdAt": m.CreatedAt, "updatedAt": m.UpdatedAt, "config": m.Config,
		"ips": list([]graphql.Object{{Type: "MachineIP", Values: map[string]any{"ip": m.PrivateIP, "kind": "privatenet", "family": "v6"}}}),
		// A fleet has none: see noEgress.
		"egressIpAddresses": list([]graphql.Object{})}}
}
