package api_test

import (
	"encoding/json"
	"strings"
	"testing"

	"drover"
	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
	"drover/fleet"
)

// gql is an answer to a GraphQL request.
type gql struct {
	Data   map[string]any `json:"data"`
	Errors []struct {
		Message    string         `json:"message"`
		Path       []any          `json:"path"`
		Extensions map[string]any `json:"extensions"`
	} `json:"errors"`
}

// at walks down into the answer's data; the steps are keys, and numbers of lists.
func (g gql) at(steps ...any) any {
	var v any = g.Data
	for _, s := range steps {
		switch s := s.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[s]
		case int:
			l, _ := v.([]any)
			if s >= len(l) {
				return nil
			}
			v = l[s]
		}
	}
	return v
}

// graph asks with the token. Whatever becomes of it, the status is 200.
func (s *server) graph(token, query string, variables map[string]any) gql {
	s.tb.Helper()
	body, err := json.Marshal(map[string]any{"query": query, "variables": variables})
	if err != nil {
		s.tb.Fatal(err)
	}
	w := s.ask("POST", "/graphql", token, string(body))
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" {
		s.tb.Fatalf("%s: %d %s", query, w.Code, w.Body)
	}
	return decode[gql](s.tb, w)
}

// refusal asks for what must be refused, and returns the reason.
func (s *server) refusal(token, query string, variables map[string]any) string {
	s.tb.Helper()
	got := s.graph(token, query, variables)
	if len(got.Errors) == 0 {
		s.tb.Fatalf("%s is not refused: %v", query, got.Data)
	}
	return got.Errors[0].Message
}

// shop makes apps of two organizations, each with a machine and a volume.
func shop(s *server) (machine apiv1.Machine, volume apiv1.Volume) {
	s.tb.Helper()
	for _, app := range []struct{ name, org string }{{"theirs", "other"}, {"shop", "acme"}} {
		s.want(201, "POST", "/v1/apps", `{"app_name":"`+app.name+`","org_slug":"`+app.org+`","network":"blue"}`)
		machine = decode[apiv1.Machine](s.tb, s.want(200, "POST", "/v1/apps/"+app.name+"/machines", image))
		volume = decode[apiv1.Volume](s.tb, s.want(200, "POST", "/v1/apps/"+app.name+"/volumes", `{"name":"data","size_gb":1}`))
	}
	return machine, volume
}

// TestGraphOperations asks what the official client asks, and looks for what it needs to find. The numbers are those of the contract's table.
func TestGraphOperations(t *testing.T) {
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend})
	machine, volume := shop(s)
	release := decode[apiv1.ReleaseResponse](t, s.want(201, "POST", "/api/v1/releases",
		`{"app_name":"shop","image":"debian:12","strategy":"ROLLING","definition":{"app":"shop"}}`)).Release
	s.want(200, "PATCH", "/api/v1/releases/"+string(release.ID), `{"status":"complete"}`)
	backend.ChangeMachine(machine.ID, func(v *fleet.MachineView) { v.HostStatus = drover.HostUnreachable })

	type wants map[string]any // a path, its steps separated by dots, and what is there
	nodes := func(path string) string { return path + ".nodes" }
	empty := []any{}
	for name, c := range map[string]struct {
		query     string
		variables map[string]any
		want      wants
	}{
		"G1": {`query($name:String!){appcompact:app(name:$name){id internalNumericId name hostname cnameTarget deployed network status appUrl platformVersion
			organization{id internalNumericId slug paidPlan} postgresAppRole:role{name}}}`, map[string]any{"name": "shop"},
			wants{"appcompact.name": "shop", "appcompact.organization.slug": "acme", "appcompact.deployed": true, "appcompact.status": "deployed",
				"appcompact.postgresAppRole": nil, "appcompact.network": "blue", "appcompact.organization.id": "acme"}},
		"G2": {`query($n:String!){appbasic:app(name:$n){id name platformVersion organization{id slug rawSlug paidPlan}}}`, map[string]any{"n": "shop"},
			wants{"appbasic.platformVersion": "machines", "appbasic.organization.rawSlug": "acme"}},
		"G3": {`{app(name:"shop"){network}}`, nil, wants{"app.network": "blue"}},
		"G4": {`query($appName:String!,$ref:String!){app(name:$appName){id image(ref:$ref){id digest ref compressedSize:compressedSizeFull manifest}}}`,
			map[string]any{"appName": "shop", "ref": "debian"}, wants{"app.image.compressedSize": "3145728",
				"app.image.digest": "sha256:" + strings.Repeat("ab", 32), "app.image.ref": "docker.io/library/debian:latest"}},
		"G5": {`{app(name:"shop"){id name organization{slug} currentRelease{id version} config{definition} services{x} ipAddresses{nodes{address}} machines{nodes{id}}
			imageDetails{tag} autoscaling{x} state hostname}}`, nil, wants{"app.organization.slug": "acme", "app.machines.nodes.0.id": string(machine.ID),
			"app.config": nil, "app.currentRelease.version": 1.0}},
		"G6": {`query($org:ID,$after:String){apps(type:"container",first:200,after:$after,organizationId:$org){pageInfo{hasNextPage endCursor}
			nodes{id name deployed hostname platformVersion network organization{slug name} currentRelease{createdAt status} status}}}`, nil,
			wants{"apps.pageInfo.hasNextPage": false, "apps.nodes.0.name": "shop", "apps.nodes.0.organization.slug": "acme", "apps.nodes.0.status": "deployed",
				"apps.nodes.0.currentRelease.createdAt": "2026-03-01T12:00:00Z", "apps.nodes.1": nil}},
		"G7": {`query($admin:Boolean!){organizations(admin:$admin){nodes{id slug rawSlug name type paidPlan billable viewerRole internalNumericId}}}`, map[string]any{"admin": false},
			wants{"organizations.nodes.0.slug": "acme", "organizations.nodes.0.id": "acme", "organizations.nodes.1": nil}},
		"G8": {`{organization(slug:"acme"){id internalNumericId slug rawSlug name type billable}}`, nil, wants{"organization.id": "acme", "organization.slug": "acme"}},
		"G9": {`{organization(slug:"acme"){addOns(type:tigris){nodes{id name}}}}`, nil, wants{nodes("organization.addOns"): empty}},
		"G10": {`{app(name:"shop"){ipAddresses{nodes{id address type region createdAt network{name} serviceName}} sharedIpAddress}}`, nil,
			wants{"app.sharedIpAddress": nil}},
		"G11": {`{app(name:"shop"){egressIpAddresses{nodes{id ip version region updatedAt}}}}`, nil, wants{nodes("app.egressIpAddresses"): empty}},
		"G12": {`{app(name:"shop"){machines{nodes{id egressIpAddresses{nodes{id ip}}}}}}`, nil,
			wants{"app.machines.nodes.0.id": string(machine.ID), "app.machines.nodes.0.egressIpAddresses.nodes": empty}},
		"G17": {`{app(name:"shop"){currentReleaseUnprocessed{configDefinition}}}`, nil, wants{"app.currentReleaseUnprocessed.configDefinition.app": "shop"}},
		"G18": {`{app(name:"shop"){currentReleaseUnprocessed{id version imageRef}}}`, nil, wants{"app.currentReleaseUnprocessed.imageRef": "debian:12"}},
		"G19": {`{app(name:"shop"){releases:releasesUnprocessed(first:25){nodes{id version description reason status imageRef stable user{id email name} createdAt}}}}`, nil,
			wants{"app.releases.nodes.0.version": 1.0, "app.releases.nodes.0.stable": true, "app.releases.nodes.0.user.email": "operator", "app.releases.nodes.1": nil}},
		"G20": {`{app(name:"shop"){currentRelease:currentReleaseUnprocessed{version}}}`, nil, wants{"app.currentRelease.version": 1.0}},
		"G22": {`query($id:String!){gqlmachine:machine(machineId:$id){id name app{name organization{id slug}}}}`, map[string]any{"id": machine.ID},
			wants{"gqlmachine.app.name": "shop", "gqlmachine.app.organization.slug": "acme", "gqlmachine.name": machine.Name}},
		"G23": {`query($id:ID!){volume:node(id:$id){id} v:volume(id:$id){... on Volume{app{name}}}}`, map[string]any{"id": volume.ID}, wants{"v.app.name": "shop"}},
		"G24": {`{platform{requestRegion regions{name code latitude longitude gatewayAvailable requiresPaidPlan deprecated}}}`, nil,
			wants{"platform.regions.0.code": "north", "platform.regions.1.code": "south", "platform.regions.0.gatewayAvailable": false, "platform.requestRegion": "north"}},
		"G25": {`{nearestRegion{code name gatewayAvailable deprecated}}`, nil, wants{"nearestRegion.code": "north"}},
		"G26": {`{apphostissues:app(name:"shop"){hostIssues{nodes{internalId message createdAt updatedAt}}}}`, nil,
			wants{"apphostissues.hostIssues.nodes.0.internalId": "h1", "apphostissues.hostIssues.nodes.0.createdAt": "2026-03-01T12:00:00Z", "apphostissues.hostIssues.nodes.1": nil}},
		"G27": {`{viewer{... on User{id email enablePaidHobby}}}`, nil, wants{"viewer.email": "alice", "viewer.id": "alice"}},
		"G28": {`query($n:String!){canPerformBluegreenDeployment(name:$n)}`, map[string]any{"n": "shop"}, wants{"canPerformBluegreenDeployment": true}},
	} {
		got := s.graph(apitest.AcmeToken, c.query, c.variables)
		if len(got.Errors) > 0 {
			t.Errorf("%s: %+v", name, got.Errors)
			continue
		}
		for path, want := range c.want {
			var steps []any
			for _, step := range strings.Split(path, ".") {
				if len(step) == 1 && step[0] >= '0' && step[0] <= '9' {
					steps = append(steps, int(step[0]-'0'))
				} else {
					steps = append(steps, step)
				}
			}
			if have := asJSON(t, got.at(steps...)); have != asJSON(t, want) {
				t.Errorf("%s: %s is %s, want %s", name, path, have, asJSON(t, want))
			}
		}
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestGraphTypes: of some fields clients take one type of JSON only, and break on others.
func TestGraphTypes(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	shop(s)
	got := s.graph(apitest.AcmeToken, `{app(name:"shop"){internalNumericId organization{internalNumericId} image(ref:"debian"){compressedSize}}}`, nil)
	if _, ok := got.at("app", "internalNumericId").(float64); !ok {
		t.Errorf("an app's number is %v", got.at("app", "internalNumericId"))
	}
	for _, path := range [][]any{{"app", "organization", "internalNumericId"}, {"app", "image", "compressedSize"}} {
		text, _ := got.at(path...).(string)
		if strings.Trim(text, "0123456789") != "" || text == "" {
			t.Errorf("%v is %v, want digits as a text", path, got.at(path...))
		}
	}
}

// TestGraphRefusals: what is not there is refused with words that clients know or people understand, never with a null that breaks a client.
func TestGraphRefusals(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	shop(s)
	for query, says := range map[string]string{
		`{app(name:"nowhere"){id}}`:                                `Could not find App "nowhere"`,
		`{app(name:"No Name/../x"){id}}`:                           `Could not find App`,
		`{app{id}}`:                                                `Could not find App`,
		`{organization(slug:"nobody"){id}}`:                        `Could not find Organization "nobody"`,
		`{machine(machineId:"00000000000000"){id}}`:                `Could not find Machine "00000000000000"`,
		`{machine(machineId:"x"){id}}`:                             `Could not find Machine "x"`,
		`{volume(id:"vol_0000000000000000"){id}}`:                  `Could not find Volume`,
		`{latestImageDetails(image:"debian",flyVersion:"x"){tag}}`: `Unknown repository`,
		`{app(name:"shop"){image(ref:"missing"){id}}}`:             `image "missing" does not exist`,
		`mutation{removeWireGuardPeer(input:{organizationId:"acme",name:"x"}){clientMutationId}}`: `has no peer "x"`,
		`mutation{issueCertificate(input:{}){certificate}}`:                                       `no SSH certificates`,
		`mutation{allocateEgressIpAddress(input:{appId:"shop"}){v4 v6}}`:                          `no egress IP addresses`,
		`mutation{releaseEgressIpAddress(input:{appId:"shop"}){v4 v6}}`:                           `no egress IP addresses`,
		`mutation{createDelegatedWireGuardToken(input:{}){token}}`:                                `no mutation "createDelegatedWireGuardToken"`,
		`mutation{setSecrets(input:{appId:"shop",secrets:[{key:"A"}]}){app{id}}}`:                 `expected a list of objects with key and value`,
		`{app(name:`: `the query cannot be read`,
	} {
		if got := s.refusal(apitest.AcmeToken, query, nil); !strings.Contains(got, says) {
			t.Errorf("%s: %q, want %q", query, got, says)
		}
	}
	for body, says := range map[string]string{`[]`: "JSON object", `{"query":3}`: "JSON object", `{}`: "query is missing", ``: "JSON object"} {
		w := s.ask("POST", "/graphql", apitest.AcmeToken, body)
		if got := decode[gql](t, w); w.Code != 200 || len(got.Errors) != 1 || !strings.Contains(got.Errors[0].Message, says) {
			t.Errorf("%q: %d %s", body, w.Code, w.Body)
		}
	}
	if got := s.graph(apitest.AcmeToken, `{app(name:"nowhere"){id}}`, nil); got.Errors[0].Extensions["code"] != "not_found" {
		t.Errorf("the code is %v", got.Errors[0].Extensions)
	}
}

// TestGraphKeepsOrganizationsApart: GraphQL tells a token no more than the routes do, and nothing about what belongs to others.
func TestGraphKeepsOrganizationsApart(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	machine, volume := shop(s)
	for _, query := range []string{
		`{app(name:"shop"){id organization{slug}}}`,
		`{app(name:"shop"){image(ref:"debian"){id}}}`,
		`{organization(slug:"acme"){id}}`,
		`{machine(machineId:"` + string(machine.ID) + `"){id app{name}}}`,
		`{volume(id:"` + string(volume.ID) + `"){id app{name}}}`,
		`{apps(organizationId:"acme"){nodes{name}}}`,
		`mutation{deleteApp(appId:"shop"){organization{id}}}`,
		`mutation{createRelease(input:{appId:"shop",image:"x"}){release{id}}}`,
		`mutation{allocateIpAddress(input:{appId:"shop",type:v4}){ipAddress{id}}}`,
		`mutation{createApp(input:{name:"new",organizationId:"acme"}){app{id}}}`,
		`mutation{setSecrets(input:{appId:"shop",secrets:[{key:"A",value:"b"}]}){app{id}}}`,
	} {
		hidden := s.refusal(apitest.OtherToken, query, nil)
		missing := s.refusal(apitest.OtherToken, strings.NewReplacer("shop", "gone", "acme", "gone").Replace(query), nil)
		if strings.NewReplacer("shop", "gone", "acme", "gone").Replace(hidden) != missing {
			t.Errorf("%s tells that it exists:\n%s\n%s", query, hidden, missing)
		}
	}
	got := s.graph(apitest.OtherToken, `{apps{nodes{name}} organizations{nodes{slug}}}`, nil)
	if asJSON(t, got.Data) != `{"apps":{"nodes":[{"name":"theirs"}]},"organizations":{"nodes":[{"slug":"other"}]}}` {
		t.Errorf("the other organization sees %v", got.Data)
	}
	got = s.graph(apitest.OperatorToken, `{apps(first:1){nodes{name} pageInfo{hasNextPage endCursor}} more:apps(first:1,after:"shop"){nodes{name} pageInfo{hasNextPage}}
		organizations{nodes{slug}}}`, nil)
	if asJSON(t, got.Data) != `{"apps":{"nodes":[{"name":"shop"}],"pageInfo":{"endCursor":"shop","hasNextPage":true}},`+
		`"more":{"nodes":[{"name":"theirs"}],"pageInfo":{"hasNextPage":false}},"organizations":{"nodes":[{"slug":"acme"},{"slug":"other"},{"slug":"personal"}]}}` {
		t.Errorf("the operator sees %s", asJSON(t, got.Data))
	}
}

func TestGraphNeedsAToken(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	shop(s)
	query := `{viewer{email}}`
	for _, token := range []string{"", "wrong"} {
		if got := s.refusal(token, query, nil); !strings.Contains(got, "not authenticated") {
			t.Errorf("with the token %q: %q", token, got)
		}
	}
	r := newRequest("POST", "//graphql", `{"query":"{viewer{email}}"}`) // the server's address was set with a slash at its end
	r.Header.Set("Authorization", "FlyV1 "+apitest.AcmeToken)
	if w := s.send(r); w.Code != 200 || decode[gql](t, w).at("viewer", "email") != "alice" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestGraphMutationsOfOlderClients: each does what the route does.
func TestGraphMutationsOfOlderClients(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	got := s.graph(apitest.AcmeToken, `mutation($in:CreateAppInput!){createApp(input:$in){app{id name organization{slug}}}}`,
		map[string]any{"in": map[string]any{"name": "fresh", "organizationId": "acme"}})
	if got.at("createApp", "app", "name") != "fresh" || got.at("createApp", "app", "organization", "slug") != "acme" {
		t.Errorf("%+v", got)
	}
	if says := s.refusal(apitest.AcmeToken, `mutation{createApp(input:{name:"fresh"}){app{id}}}`, nil); !strings.Contains(says, "taken") {
		t.Errorf("a name that is taken: %q", says)
	}
	got = s.graph(apitest.AcmeToken, `mutation{createRelease(input:{appId:"fresh",image:"debian",strategy:ROLLING,definition:{app:"fresh"}}){release{id version}}}`, nil)
	if got.at("createRelease", "release", "version") != 1.0 {
		t.Errorf("%+v", got)
	}
	got = s.graph(apitest.AcmeToken, `mutation($id:ID!){deleteApp(appId:$id){organization{id}}}`, map[string]any{"id": "fresh"})
	if got.at("deleteApp", "organization", "id") != "acme" {
		t.Errorf("%+v", got)
	}
	s.refused(404, "GET", "/v1/apps/fresh", "")
}
