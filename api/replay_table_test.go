package api_test

import (
	"encoding/json"
	"slices"

	"drover"
)

// The paths of the app, the machine and the volume that commands are about.
const (
	onApp      = "/v1/apps/shop"
	onMachines = onApp + "/machines"
	onMachine  = onMachines + "/{m}"
	onVolumes  = onApp + "/volumes"
	onVolume   = onVolumes + "/{v}"
)

// machineFinds is what the client takes apart of every machine.
func machineFinds(at string) []string {
	var all []string
	for _, f := range []string{"id", "name", "state", "region", "instance_id", "version", "private_ip", "created_at", "updated_at", "image_ref.digest",
		"image_ref.repository", "config.guest.cpu_kind", "config.guest.cpus", "config.guest.memory_mb", "config.image", "events", "checks", "host_status=ok"} {
		all = append(all, at+f)
	}
	return all
}

func volumeFinds(at string) []string {
	var all []string
	for _, f := range []string{"id", "name", "state", "size_gb", "region", "encrypted", "created_at", "snapshot_retention", "auto_backup_enabled", "host_status=ok"} {
		all = append(all, at+f)
	}
	return all
}

// get, list and act are requests with what is usual for them.
func get(path string, finds ...string) ask {
	return ask{method: "GET", path: path, finds: finds}
}

func list(path string, finds ...string) ask {
	return ask{method: "GET", path: path, bare: true, finds: finds}
}

func act(path, body string, finds ...string) ask {
	return ask{method: "POST", path: path, body: body, finds: finds}
}

func (a ask) withNonce() ask { a.nonce = true; return a }

func (a ask) keeping(name, path string) ask { a.keep = map[string]string{name: path}; return a }

func (a ask) after(before func(*replay)) ask { a.before = before; return a }

func (a ask) answering(status int) ask { a.status = status; return a }

// graphAsk is a GraphQL request; what is found is below its data.
func graphAsk(query string, variables map[string]any, finds ...string) ask {
	body, err := json.Marshal(map[string]any{"query": query, "variables": variables})
	if err != nil {
		panic(err)
	}
	for i, f := range finds {
		finds[i] = "data." + f
	}
	return ask{method: "POST", path: "/graphql", body: string(body), finds: finds}
}

// The requests of GraphQL and of the web API that many commands begin with.
func g1() ask {
	return graphAsk(`query($appName:String!){appcompact:app(name:$appName){id name hostname deployed network status appUrl platformVersion
		organization{id internalNumericId slug paidPlan} postgresAppRole:role{name}}}`, map[string]any{"appName": "shop"}, "appcompact.name=shop", "appcompact.organization.slug=acme")
}

func g2() ask {
	return graphAsk(`query($appName:String!){appbasic:app(name:$appName){id name platformVersion organization{id slug rawSlug paidPlan}}}`,
		map[string]any{"appName": "shop"}, "appbasic.name=shop", "appbasic.organization.slug=acme")
}

func g3() ask { return graphAsk(`{app(name:"shop"){network}}`, nil, "app") }

func g4() ask {
	return graphAsk(`query($appName:String!,$imageRef:String!){app(name:$appName){id image(ref:$imageRef){id digest ref compressedSize:compressedSizeFull}}}`,
		map[string]any{"appName": "shop", "imageRef": "debian"}, "app.image.ref", "app.image.digest", "app.image.compressedSize")
}

func g11() ask {
	return graphAsk(`{app(name:"shop"){egressIpAddresses{nodes{id ip version region updatedAt}}}}`, nil, "app.egressIpAddresses.nodes")
}

func g17() ask {
	return graphAsk(`{app(name:"shop"){currentReleaseUnprocessed{configDefinition}}}`, nil, "app")
}

func webOrg() ask {
	return get("/api/v1/organizations/acme", "organization.id", "organization.slug=acme")
}

// image is what a command does that has an image to look at.
func imageAsks() []ask {
	return []ask{get(onApp, "name=shop", "organization.slug=acme"), webOrg(),
		act("/api/v1/builds", `{"app_name":"shop","builder_type":"local","strategies_available":["pull"]}`, "id", "status"), g4(),
		act("/api/v1/builds/finish", `{"app_name":"shop","build_id":1,"machine_id":"","status":"completed","strategies_attempted":[]}`)}
}

// lease and release surround what a command does to a machine.
func lease(ttl string) ask {
	return act(onMachine+"/lease?ttl="+ttl, "", "status=success", "data.nonce", "data.expires_at", "data.owner").keeping("nonce", "data.nonce")
}

func unlease() ask { return ask{method: "DELETE", path: onMachine + "/lease", nonce: true} }

func leased(asks ...ask) []ask {
	all := append([]ask{get(onMachine, machineFinds("")...), lease("120")}, asks...)
	return append(all, unlease())
}

const runConfig = `"config":{"env":{"A":"b"},"init":{},"guest":{"cpu_kind":"shared","cpus":1,"memory_mb":256},"image":"docker.io/library/debian:latest@sha256:` +
	`abababababababababababababababababababababababababababababababab","restart":{"policy":"always"},"dns":{}},"region":"north","skip_secrets":false`

// deployConfig is one of a machine that deploy looks after.
const deployConfig = `"config":{"metadata":{"fly_platform_version":"v2","fly_process_group":"app","fly_release_id":"{release}","fly_release_version":"1","fly_flyctl_version":"0.4"},` +
	`"guest":{"cpu_kind":"shared","cpus":1,"memory_mb":256},"image":"debian","restart":{"policy":"on-failure","max_retries":10},` +
	`"services":[{"protocol":"tcp","internal_port":8080,"autostop":false,"autostart":true,"force_instance_key":null,"ports":[{"port":80,"handlers":["http"]}]}]},"skip_secrets":false`

func join(lists ...[]ask) []ask { return slices.Concat(lists...) }

// commands is what each command asks, as it was seen. Later ones use what earlier ones made.
func commands() []command {
	waitFor := func(state string) ask { return get(onMachine + "/wait?state=" + state + "&timeout=60") }
	release := func(status string) ask {
		return ask{method: "PATCH", path: "/api/v1/releases/{release}", body: `{"status":"` + status + `","metadata":{"post_deployment_info":{"flyctl_version":"0.4"}}}`, status: 200,
			finds: []string{"id={release}", "version"}}
	}
	newRelease := ask{method: "POST", path: "/api/v1/releases", body: `{"app_name":"shop","build_id":1,"definition":{"app":"shop"},"image":"debian:latest","strategy":"ROLLING"}`,
		finds: []string{"release.id", "release.version"}, keep: map[string]string{"release": "release.id"}}
	appsQuery := `query($org:ID,$after:String){apps(type:"container",first:200,after:$after,organizationId:$org){pageInfo{hasNextPage endCursor}
		nodes{id name deployed hostname platformVersion network organization{slug name} currentRelease{createdAt status} status}}}`
	return []command{
		{"apps create", []ask{
			graphAsk(`query($admin:Boolean!){organizations(admin:$admin){nodes{id slug rawSlug name type}}}`, map[string]any{"admin": false}, "organizations.nodes.0.slug=acme", "organizations.nodes.0.id"),
			act("/v1/apps?wait=true", `{"name":"shop","org_slug":"acme","network":"","app_role_id":""}`, "name=shop").answering(201), get(onApp, "name=shop")}},
		{"apps create, name taken", []ask{act("/v1/apps?wait=true", `{"name":"shop","org_slug":"acme","network":"","app_role_id":""}`, "status=name_taken", "error").answering(422)}},
		{"apps list", []ask{graphAsk(appsQuery, nil, "apps.pageInfo", "apps.nodes.0.name=shop", "apps.nodes.0.organization.slug=acme", "apps.nodes.0.status")}},
		{"apps list --org", []ask{graphAsk(`{organization(slug:"acme"){id slug name}}`, nil, "organization.id", "organization.slug"),
			graphAsk(appsQuery, map[string]any{"org": "acme"}, "apps.nodes.0.name=shop")}},
		{"machine run", join([]ask{g1(), g3()}, imageAsks(), []ask{act(onMachines, `{`+runConfig+`}`, machineFinds("")...).keeping("m", "id"), waitFor("started"), g11()})},
		{"machine create", join([]ask{g1(), g3()}, imageAsks(), []ask{act(onMachines, `{"skip_launch":true,`+runConfig+`}`, machineFinds("")...)})},
		{"machine list", []ask{list(onMachines, machineFinds("0.")...)}},
		{"machine status", []ask{get(onMachine, machineFinds("")...)}},
		{"machine status without -a", []ask{
			graphAsk(`query($id:String!){gqlmachine:machine(machineId:$id){id name app{name organization{id slug}}}}`, map[string]any{"id": "{m}"}, "gqlmachine.app.name=shop"),
			get(onMachine, machineFinds("")...)}},
		{"machine exec", []ask{get(onMachine, "id"), act(onMachine+"/exec", `{"cmd":"ls /","timeout":5}`)}},
		{"machine kill", []ask{get(onMachine, "id"), act(onMachine+"/signal", `{"signal":9}`)}},
		{"machine wait", []ask{get(onMachine, "id"), waitFor("settled"), get(onMachine, "state")}},
		{"machine stop", leased(act(onMachine+"/stop", `{"id":"{m}","timeout":"0s"}`).withNonce())},
		{"machine stop -w", leased(act(onMachine+"/stop", `{"id":"{m}","signal":"SIGINT","timeout":"3s"}`).withNonce(), get(onMachine, "state"), get(onMachine+"/wait?state=stopped&timeout=10"))},
		{"machine start", leased(act(onMachine+"/start", "", "previous_state").withNonce())},
		{"machine suspend", leased(act(onMachine+"/suspend", "").withNonce())},
		{"machine start of a suspended one", leased(act(onMachine+"/start", "", "previous_state").withNonce())},
		{"machine restart", leased(act(onMachine+"/restart?force_stop=false", "").withNonce(), waitFor("started"), get(onMachine, "checks"))},
		{"machine restart --signal", leased(act(onMachine+"/restart?force_stop=false&timeout=7s&signal=SIGTERM", "").withNonce(), waitFor("started"))},
		{"machine update", leased(act(onMachine, `{`+runConfig+`}`, machineFinds("")...).withNonce(), waitFor("settled"), get(onMachine, machineFinds("")...))},
		{"machine update --image", join([]ask{get(onMachine, machineFinds("")...), lease("120")}, imageAsks(),
			[]ask{act(onMachine, `{`+runConfig+`}`, machineFinds("")...).withNonce(), waitFor("settled"), get(onMachine, "state"), unlease()})},
		{"machine clone", []ask{get(onMachine, machineFinds("")...), act(onMachines, `{`+runConfig+`}`, machineFinds("")...), waitFor("started")}},
		{"machine cordon", leased(act(onMachine+"/cordon", "").withNonce())},
		{"machine uncordon", leased(act(onMachine+"/uncordon", "").withNonce())},
		{"machine leases view, none", []ask{get(onMachine, "id"), get(onMachine+"/lease", "error").answering(404)}},
		{"machine leases view and clear", []ask{lease("120"), get(onMachine, "id"), get(onMachine+"/lease", "data.nonce={nonce}", "status=success"), unlease()}},
		{"machine place", []ask{act("/v1/platform/placements", `{"compute":{"cpu_kind":"shared","cpus":1,"memory_mb":256},"region":"north","count":1,"volume_name":"","volume_size_bytes":0,"org_slug":"acme"}`, "Regions")}},
		{"volumes create", []ask{g2(), graphAsk(`{platform{requestRegion regions{name code latitude longitude gatewayAvailable requiresPaidPlan deprecated}}}`, nil, "platform.regions.0.code"),
			act(onVolumes, `{"name":"data","region":"north","size_gb":3,"encrypted":true,"require_unique_zone":true,"unique_zone_app_wide":false,"snapshot_retention":5,
				"auto_backup_enabled":null,"fstype":null,"snapshot_id":null,"source_volume_id":null,"compute":{"cpu_kind":"shared","cpus":1,"memory_mb":256},"compute_image":""}`, volumeFinds("")...).keeping("v", "id")}},
		{"volumes list", []ask{g2(), list(onVolumes, volumeFinds("0.")...)}},
		{"volumes show without -a", []ask{graphAsk(`query($id:ID!){volume(id:$id){... on Volume{app{name}}}}`, map[string]any{"id": "{v}"}, "volume.app.name=shop"), get(onVolume, volumeFinds("")...)}},
		{"volumes extend", []ask{g2(), get(onVolume, "size_gb"), {method: "PUT", path: onVolume + "/extend", body: `{"size_gb":5}`, finds: []string{"volume.id", "volume.size_gb=5", "needs_restart"}}}},
		{"volumes update", []ask{{method: "PUT", path: onVolume, body: `{"snapshot_retention":9,"auto_backup_enabled":null}`, finds: volumeFinds("")}}},
		{"volumes snapshots", []ask{act(onVolume+"/snapshots", ""), list(onVolume+"/snapshots", "0.id", "0.status", "0.created_at", "0.size")}},
		{"volumes fork", []ask{get(onVolume, volumeFinds("")...), act(onVolumes, `{"name":"data","region":"","size_gb":5,"encrypted":true,"snapshot_retention":5,"fstype":null,"source_volume_id":"{v}"}`, volumeFinds("")...)}},
		{"volumes destroy", []ask{{method: "DELETE", path: onVolume, finds: []string{"id", "state"}}}},
		{"secrets set --stage", []ask{g1(), act(onApp+"/secrets", `{"values":{"KEY":"value"}}`, "secrets", "version")}},
		{"secrets list", []ask{get(onApp+"/secrets", "secrets"), list(onMachines), get("/api/v1/apps/shop/releases?limit=20", "releases")}},
		{"secrets sync", []ask{act(onApp+"/secrets", `{"values":{"BogusDummySecret_1f":null}}`, "version")}},
		{"ips list", []ask{graphAsk(`{app(name:"shop"){ipAddresses{nodes{id address type region createdAt network{name organization{slug}} serviceName}} sharedIpAddress}}`, nil, "app.ipAddresses.nodes"), g11()}},
		{"certs list", []ask{get(onApp+"/certificates?limit=50", "certificates")}},
		{"status", []ask{g1(), list(onMachines), {method: "POST", path: "/graphql", body: `{"query":"{latestImageDetails(image:\"debian\",flyVersion:\"x\"){tag}}"}`, finds: []string{"errors.0.message=Unknown repository"}}}},
		{"logs --no-tail", []ask{get("/api/v1/apps/shop/logs?next_token=", "data", "meta.next_token")}},
		{"incidents hosts list", []ask{graphAsk(`{apphostissues:app(name:"shop"){hostIssues{nodes{internalId message createdAt updatedAt}}}}`, nil, "apphostissues.hostIssues.nodes")}},
		{"platform regions", []ask{get("/v1/platform/regions", "Regions.0.code", "Nearest")}},
		{"releases, none", []ask{graphAsk(`{app(name:"shop"){releases:releasesUnprocessed(first:25){nodes{id version status imageRef user{email} createdAt}}}}`, nil, "app.releases.nodes")}},
		{"config show", []ask{g17(), list(onMachines)}},
		{"deploy, first", join(imageAsks(), []ask{list(onMachines), newRelease, g11(), release("running"),
			{method: "POST", path: onMachines, body: `{"lease_ttl":300,` + deployConfig + `}`, finds: machineFinds(""), keep: map[string]string{"m": "id", "nonce": "nonce"}},
			get(onMachine, machineFinds("")...), waitFor("started"), list(onMachine + "/ps"), unlease(), release("complete")})},
		{"deploy, rolling", join(imageAsks(), []ask{list(onMachines), newRelease, g11(), release("running"), lease("13"), act(onMachine, `{`+deployConfig+`}`, machineFinds("")...).withNonce(),
			waitFor("started"), get(onMachine, machineFinds("")...), act(onMachine+"/lease?ttl=13", "", "data.nonce={nonce}", "status=success").withNonce(), get(onMachine, "events", "checks"),
			list(onMachine + "/ps"), unlease(), release("complete")})},
		{"a release of deploy", []ask{newRelease, release("running"), release("complete"), release("complete")}},
		{"secrets deploy", []ask{g1(), list(onMachines), g17(), list(onMachines), get(onApp, "name"), graphAsk(`{app(name:"shop"){currentReleaseUnprocessed{id version imageRef}}}`, nil, "app.currentReleaseUnprocessed.imageRef=debian:latest"),
			newRelease, release("running"), release("complete")}},
		{"deploy, canary: a stale nonce", []ask{lease("13"), unlease(), act(onMachine+"/stop", `{"id":"{m}"}`).withNonce()}},
		{"deploy, bluegreen: the new machine", []ask{act(onMachines, `{"skip_service_registration":true,"skip_launch":false,"skip_secrets":false,"config":{"image":"debian"}}`,
			"cordoned=true").keeping("m", "id"), waitFor("started"), act(onMachine+"/uncordon", ""), get(onMachine, "cordoned=false")}},
		{"deploy, bluegreen: leased machines", []ask{lease("13"), graphAsk(`query($n:String!){canPerformBluegreenDeployment(name:$n)}`, map[string]any{"n": "shop"}, "canPerformBluegreenDeployment=true"),
			act(onMachine+"/metadata/fly_bluegreen_deployment_tag", `{"value":"safe_to_destroy"}`), act(onMachine+"/cordon", "").withNonce(),
			act(onMachine+"/stop", `{"id":"{m}"}`).withNonce(), get(onMachine + "/wait?state=stopped&timeout=60"), unlease()}},
		{"deploy, release command", []ask{get(onApp, "name"),
			act(onMachines, `{"skip_launch":true,"config":{"auto_destroy":true,"image":"debian","restart":{"policy":"no"},"dns":{"skip_registration":true},"env":{"RELEASE_COMMAND":"1"},
				"metadata":{"fly_process_group":"fly_app_release_command"},"init":{"cmd":["true"]}}}`, machineFinds("")...).keeping("m", "id"),
			waitFor("stopped").after(machineState(drover.StateStopped)), get("/api/v1/apps/shop/logs?next_token=&instance={m}", "data"), act(onMachine+"/start", "", "previous_state"),
			waitFor("started"), waitFor("destroyed").after(destroyedMachine), get(onMachine, "events.0.type=exit", "events.0.request.exit_event.exit_code=0", "state=destroyed")}},
		{"machine destroy --force", []ask{list(onMachines, "0.id").keeping("m", "0.id"), get(onMachine, "id"), lease("120"), g1(),
			{method: "DELETE", path: onMachine + "?kill=true", nonce: true}}},
		{"machine destroy, running", []ask{list(onMachines, "0.id").keeping("m", "0.id"), {method: "DELETE", path: onMachine + "?kill=false", before: machineState(drover.StateStarted), status: 412, finds: []string{"error"}}}},
		{"apps destroy", []ask{graphAsk(`{app(name:"shop"){id name organization{slug} currentRelease{id} config{definition} services{x} ipAddresses{nodes{address}}}}`, nil, "app.organization.slug=acme"),
			graphAsk(`{organization(slug:"acme"){id slug}}`, nil, "organization.id"), graphAsk(`{organization(slug:"acme"){addOns(type:tigris){nodes{id name}}}}`, nil, "organization.addOns.nodes"),
			ask{method: "DELETE", path: "/v1/apps/fresh"}.after(func(p *replay) { p.s.want(201, "POST", "/v1/apps", `{"name":"fresh","org_slug":"acme"}`) })}},
	}
}
