package api

import (
	"context"
	"net/http"
	"net/url"

	"drover"
	"drover/api/graphql"
	"drover/apiv1"
)

// mutation is where mutations begin. Each asks the route of the API that does the same; one that is not known is refused, since null would look like
// a success.
func (g *graph) mutation() graphql.Object {
	certificate := func(context.Context, graphql.Args) (any, error) { return nil, noCertificate() }
	egress := func(context.Context, graphql.Args) (any, error) { return nil, noEgress() }
	input := func(do func(graphql.Args) (any, error)) graphql.Field {
		return func(_ context.Context, args graphql.Args) (any, error) { return do(args.Object("input")) }
	}
	return graphql.Object{Type: "Mutation",
		Unknown: func(name string) error {
			return drover.Errorf(drover.Invalid, "this fleet has no mutation %q", name).WithHint("docs/CLIENTS.md lists what is there")
		},
		Fields: map[string]graphql.Field{
			"allocateIpAddress":       input(g.allocateAddress),
			"releaseIpAddress":        input(g.releaseAddress),
			"allocateEgressIpAddress": egress,
			"releaseEgressIpAddress":  egress,
			"validateWireGuardPeers":  input(g.validatePeers),
			"addWireGuardPeer":        input(g.addPeer),
			"removeWireGuardPeer":     input(g.removePeer),
			"issueCertificate":        certificate,
			// What clients of before 2026 do this way.
			"createApp":     input(g.createApp),
			"deleteApp":     func(_ context.Context, args graphql.Args) (any, error) { return g.deleteApp(args.String("appId")) },
			"setSecrets":    input(g.setSecrets),
			"unsetSecrets":  input(g.unsetSecrets),
			"createRelease": input(g.createRelease),
		}}
}

// noCertificate refuses what SSH over the private network begins with.
func noCertificate() error {
	return drover.Errorf(drover.Precondition, "this fleet makes no SSH certificates: machines have no SSH server of their own").
		WithHint("'drover ssh' opens a terminal in a machine, 'drover exec' and 'fly machine exec' run commands in it")
}

func (g *graph) allocateAddress(in graphql.Args) (any, error) {
	app, err := g.appNamed(in.String("appId"))
	if err != nil {
		return nil, err
	}
	body := map[string]any{"type": in.String("type")}
	for field, key := range map[string]string{"region": "region", "organizationId": "org_slug", "network": "network", "serviceName": "service_name"} {
		if v := in.String(field); v != "" {
			body[key] = v
		}
	}
	var made graphAddress
	if err := g.h.inside(g.c, http.MethodPost, addressesPath(string(app.Name)), body, &made); err != nil {
		return nil, err
	}
	return payload(map[string]any{"ipAddress": g.address(made), "app": g.app(app)}), nil
}

func (g *graph) releaseAddress(in graphql.Args) (any, error) {
	ip := in.String("ip")
	if ip == "" {
		ip = in.String("ipAddressId") // which is the address: see address
	}
	app, err := g.appNamed(in.String("appId"))
	if err != nil {
		return nil, err
	}
	if err := g.h.inside(g.c, http.MethodDelete, addressesPath(string(app.Name))+"/"+url.PathEscape(ip), nil, nil); err != nil {
		return nil, err
	}
	return payload(map[string]any{"app": g.app(app), "clientMutationId": in.String("clientMutationId")}), nil
}

func payload(values map[string]any) graphql.Object {
	return graphql.Object{Type: "Payload", Values: values}
}

func (g *graph) createApp(in graphql.Args) (any, error) {
	var app apiv1.App
	err := g.h.inside(g.c, http.MethodPost, prefix+"/apps", apiv1.CreateAppRequest{AppName: in.String("name"), OrgSlug: in.String("organizationId"),
		Network: in.String("network")}, &app)
	if err != nil {
		return nil, err
	}
	return payload(map[string]any{"app": g.app(app)}), nil
}

func (g *graph) deleteApp(name string) (any, error) {
	app, err := g.appNamed(name)
	if err != nil {
		return nil, err
	}
	if err := g.h.inside(g.c, http.MethodDelete, prefix+"/apps/"+string(app.Name), nil, nil); err != nil {
		return nil, err
	}
	return payload(map[string]any{"organization": g.organization(app.Organization.Slug)}), nil
}

func (g *graph) setSecrets(in graphql.Args) (any, error) {
	values := map[string]any{}
	items, _ := in["secrets"].([]any)
	for _, item := range items {
		secret, _ := item.(map[string]any)
		key, _ := secret["key"].(string)
		text, ok := secret["value"].(string)
		if key == "" || !ok {
			return nil, drover.Errorf(drover.Invalid, "secrets: expected a list of objects with key and value").WithField("input.secrets")
		}
		values[key] = text
	}
	return g.changeSecrets(in.String("appId"), values)
}

func (g *graph) unsetSecrets(in graphql.Args) (any, error) {
	values := map[string]any{}
	keys, _ := in["keys"].([]any)
	for _, item := range keys {
		key, ok := item.(string)
		if !ok || key == "" {
			return nil, drover.Errorf(drover.Invalid, "keys: expected a list of names").WithField("input.keys")
		}
		values[key] = nil
	}
	return g.changeSecrets(in.String("appId"), values)
}

// changeSecrets sets those with a text, and removes those with nil.
func (g *graph) changeSecrets(name string, values map[string]any) (any, error) {
	app, err := g.appNamed(name)
	if err != nil {
		return nil, err
	}
	if len(values) == 0 {
		return nil, drover.Errorf(drover.Invalid, "no secret is named").WithField("input")
	}
	err = g.h.inside(g.c, http.MethodPost, prefix+"/apps/"+string(app.Name)+"/secrets", map[string]any{"values": values}, nil)
	if err != nil {
		return nil, err
	}
	release, err := g.currentRelease(app.Name)
	if err != nil {
		return nil, err
	}
	return payload(map[string]any{"release": release, "app": g.app(app)}), nil
}

func (g *graph) createRelease(in graphql.Args) (any, error) {
	var made apiv1.ReleaseResponse
	body := map[string]any{"app_name": in.String("appId"), "image": in.String("image"), "strategy": in.String("strategy")}
	if definition, ok := in["definition"].(map[string]any); ok {
		body["definition"] = definition
	}
	if err := g.h.inside(g.c, http.MethodPost, webPrefix+"/releases", body, &made); err != nil {
		return nil, err
	}
	r, err := g.h.backend.Release(g.c.ctx(), made.Release.ID)
	if err != nil {
		return nil, err
	}
	return payload(map[string]any{"release": g.release(r)}), nil
}
