package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"drover"
	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
	"drover/fleet"
)

const image = `{"config":{"image":"debian"}}`

// TestEveryOperationOfTheDocument asks every operation that the document has at least once, and holds each answer against it and
// against the published document.
func TestEveryOperationOfTheDocument(t *testing.T) {
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend, Version: "1.2.3"})

	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger","org_slug":"acme"}`)
	s.want(200, "GET", "/v1/apps?org_slug=acme", "")
	s.want(200, "GET", "/v1/apps/ledger", "")
	volume := decode[apiv1.Volume](t, s.want(200, "POST", "/v1/apps/ledger/volumes", `{"name":"data","size_gb":2,"encrypted":true,"fstype":"ext4"}`))
	machine := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", `{"name":"one","region":"north","skip_secrets":true,"config":{
		"image":"debian","guest":{"cpus":1,"memory_mb":512},"env":{"A":"b"},"restart":{"policy":"always"},"stop_config":{"signal":"SIGTERM","timeout":"7s"},
		"mounts":[{"volume":"`+string(volume.ID)+`","path":"/data"}],"checks":{"up":{"type":"http","port":80,"path":"/","interval":"15s","timeout":2000000000}},
		"metadata":{"fly_platform_version":"v2"},"services":[{"protocol":"tcp","internal_port":8080}]}}`))
	path := "/v1/apps/ledger/machines/" + string(machine.ID)

	backend.ChangeMachine(machine.ID, func(v *fleet.MachineView) {
		code := 3
		v.Status.ExitCode, v.Status.Reason = &code, "retries are used up"
		v.Status.Events = append(v.Status.Events, drover.Event{ID: "ev2", Type: "exit", Status: drover.StateStopped, Source: "guest",
			Request: map[string]any{"exit_code": 3}, At: v.Machine.CreatedAt})
	})
	s.want(200, "GET", "/v1/apps/ledger/machines?region=north&include_deleted=true", "")
	s.want(200, "GET", path, "")
	s.want(200, "GET", path+"/events", "")
	s.want(200, "POST", path, `{"current_version":"`+string(machine.InstanceID)+`","config":{"image":"debian","mounts":[{"volume":"`+string(volume.ID)+`","path":"/data"}]}}`)
	s.want(200, "POST", path+"/start", "")
	s.want(200, "POST", path+"/restart?force_stop=false", "")
	s.want(200, "GET", path+"/wait?state=started&timeout=1", "")
	everyOperationAround(s, path)
	s.want(200, "POST", path+"/exec", `{"cmd":"ls -l '/a b'"}`)
	deploy := decode[apiv1.Deploy](t, s.want(201, "POST", "/v1/apps/ledger/deploys", `{"text":"debian","strategy":"rolling","max_unavailable":1,"wait_timeout":"5m",
		"items":[{"action":"update","machine":"`+string(machine.ID)+`","group":"app","config":{"image":"debian"}}]}`))
	s.want(200, "GET", "/v1/apps/ledger/deploys", "")
	s.want(200, "GET", "/v1/apps/ledger/deploys/"+string(deploy.ID), "")
	s.want(200, "POST", "/v1/apps/ledger/deploys/"+string(deploy.ID)+"/abort", "")
	s.want(400, "GET", path+"/exec/stream", "") // its success is no HTTP answer: see package client's tests
	s.want(200, "POST", path+"/signal", `{"signal":1}`)
	s.want(200, "GET", path+"/logs?tail=5", "")

	migration := decode[apiv1.Migration](t, s.want(201, "POST", "/v1/operator/migrations", `{"machine":"`+string(machine.ID)+`","target":"h2"}`))
	s.want(200, "GET", "/v1/operator/migrations?machine="+string(machine.ID), "")
	s.want(200, "GET", "/v1/operator/migrations/phases?since=1h&app=ledger&host=h1", "")
	s.want(200, "GET", "/v1/operator/migrations/"+string(migration.ID), "")
	s.want(200, "POST", "/v1/operator/migrations/check", `{"machine":"`+string(machine.ID)+`","target":"h2","live":true,"switch":"late","bandwidth":1048576,"deadline":"10m"}`)
	s.want(200, "POST", "/v1/operator/migrations/"+string(migration.ID)+"/undo", `{"confirm":false}`)
	s.want(200, "POST", "/v1/operator/migrations/"+string(migration.ID)+"/write-off", `{"confirm":true,"reason":"it has burnt"}`)
	s.want(200, "GET", path, "") // with its migration
	s.want(200, "POST", "/v1/operator/migrations/"+string(migration.ID)+"/abort", "")
	s.want(200, "GET", "/v1/operator/hosts", "")
	everyOperationOfDrains(s, machine.ID)
	s.want(200, "GET", "/v1/operator/hosts/h1", "")
	s.want(200, "GET", "/v1/operator/keys", "")
	s.want(200, "POST", "/v1/operator/keys/rotate", "")
	s.want(200, "GET", "/v1/operator/hosts/h1/layers", "")
	s.want(200, "GET", "/v1/operator/hosts/h1/machines", "")

	everyOperationOfRecoveries(s, backend, string(volume.ID))
	everyOperationOfSecrets(s)
	everyOperationOfEdges(s)
	everyOperationOfPlaces(s)
	s.want(200, "PUT", "/v1/operator/hosts/h1/storage", `{"hydration_limit":1048576,"stall_after":"90s"}`)
	everyOperationOfVolumes(s, backend, "/v1/apps/ledger/volumes/"+string(volume.ID), volume.ID)

	s.want(200, "POST", path+"/suspend", "")
	s.want(200, "POST", path+"/start", "")
	s.want(200, "POST", path+"/stop", `{"id":"x","signal":"SIGTERM","timeout":"0s"}`)
	s.want(200, "DELETE", path+"?kill=true", "")
	backend.ChangeVolume(volume.ID, func(v *fleet.VolumeView) { v.Volume.Machine, v.Hydration = "", &drover.Hydration{Total: 5} })
	s.want(200, "GET", "/v1/apps/ledger/volumes", "")
	s.want(200, "GET", "/v1/apps/ledger/volumes/"+string(volume.ID), "")
	s.want(200, "DELETE", "/v1/apps/ledger/volumes/"+string(volume.ID), "")
	s.want(200, "GET", "/v1/apps/ledger/volumes?deleted=true", "")
	s.want(200, "POST", "/v1/apps/ledger/volumes/"+string(volume.ID)+"/undelete", "")
	s.want(201, "POST", "/v1/apps", `{"name":"gone"}`)
	s.want(202, "DELETE", "/v1/apps/gone", "")
	s.want(202, "DELETE", "/v1/apps/ledger", "")
	s.want(200, "GET", "/v1/apps?deleted=true", "")
	s.want(200, "POST", "/v1/apps/ledger/undelete", "")
	everyOperationOfTokens(s)
	everyOperationOfWireGuard(s)
	s.want(200, "POST", "/v1/apps/ledger/network_policies",
		`{"name":"web","selector":{"all":true},"rules":[{"action":"allow","direction":"ingress","ports":[{"protocol":"tcp","port":80}],"peers":[{"app":"ledger"}]}]}`)
	s.want(200, "GET", "/v1/apps/ledger/network_policies", "")
	s.want(200, "GET", "/v1/apps/ledger/network_policies/web", "")
	s.want(200, "DELETE", "/v1/apps/ledger/network_policies/np_web", "")
	s.want(200, "GET", "/v1/healthz", "")
	document := s.want(200, "GET", "/v1/openapi.json", "")

	doc, err := openapi3.NewLoader().LoadFromData(document.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if doc.Info.Version != "1.2.3" {
		t.Errorf("the document's version is %q", doc.Info.Version)
	}
	operations := 0
	for path, item := range doc.Paths.Map() {
		for method, operation := range item.Operations() {
			operations++
			if s.seen[operation.OperationID] == 0 {
				t.Errorf("%s %s (%s) is in the document, and this test does not ask it", method, path, operation.OperationID)
			}
			if operation.Summary == "" {
				t.Errorf("%s %s has no summary", method, path)
			}
		}
	}
	if operations < 52 {
		t.Errorf("the document has %d operations only", operations)
	}
	if s.published != nil && len(s.seenPublished) < 31 {
		t.Errorf("only %d operations were held against the published document: %v", len(s.seenPublished), s.seenPublished)
	}
}

// everyOperationOfDrains asks what there is to ask of drains, marks and labels.
func everyOperationOfDrains(s *server, machine drover.MachineID) {
	s.tb.Helper()
	s.want(200, "POST", "/v1/operator/drains/plan", `{"host":"h1","reason":"kernel","per_app":2,"window":"01:00-05:00","at_deadline":"stop","deadline":"10m"}`)
	d := decode[apiv1.Drain](s.tb, s.want(201, "POST", "/v1/operator/drains", `{"host":"h1","reason":"kernel"}`))
	path := "/v1/operator/drains/" + string(d.ID)
	s.want(200, "GET", "/v1/operator/drains?host=h1", "")
	s.want(200, "GET", path, "")
	s.want(200, "POST", path+"/pause", "")
	s.want(200, "POST", path+"/resume", `{"class":"shop"}`)
	s.want(200, "POST", path+"/approve", `{"machine":"`+string(machine)+`"}`)
	s.want(200, "POST", path+"/abort", `{"running":true}`)
	s.want(200, "POST", path+"/return", `{"reason":"kernel is in","dry_run":true}`)
	s.want(200, "POST", "/v1/operator/hosts/h1/cordon", `{"reason":"a fan is loud","for":"4h","suspect":true}`)
	s.want(200, "GET", "/v1/operator/hosts/h1", "")
	s.want(200, "POST", "/v1/operator/hosts/h1/uncordon", "")
	s.want(200, "GET", "/v1/operator/regions/north/check", "")
	s.want(200, "POST", "/v1/apps/ledger/metadata/drover.move", `{"value":"ask"}`)
	if r := s.refused(400, "POST", "/v1/apps/ledger/metadata/drover.move", `{"value":"perhaps"}`); r.Field != "value" {
		s.tb.Errorf("%+v", r)
	}
	if r := s.refused(400, "POST", "/v1/operator/drains", `{"host":"h1"}`); r.Field != "reason" {
		s.tb.Errorf("%+v", r)
	}
	s.refused(400, "POST", "/v1/operator/drains", `{"host":"h1","reason":"x","window":"morning"}`)
	s.refused(404, "GET", "/v1/operator/drains/drn_x", "")
}

// everyOperationOfVolumes asks what there is to ask of a volume that lives, and of its snapshots.
func everyOperationOfVolumes(s *server, backend *apitest.Backend, path string, id drover.VolumeID) {
	s.tb.Helper()
	s.want(200, "PUT", path, `{"snapshot_retention":7,"auto_backup_enabled":null,"limits":{"iops":500}}`)
	s.want(200, "PUT", path+"/extend", `{"size_gb":3}`)
	s.want(200, "POST", path+"/verify", "")
	s.want(200, "GET", path+"/verify", "")
	snapshot := decode[apiv1.Snapshot](s.tb, s.want(200, "POST", path+"/snapshots", ""))
	s.want(200, "GET", path+"/snapshots", "")
	s.want(200, "GET", "/v1/apps/ledger/snapshots", "")
	s.want(200, "GET", path+"/snapshots/"+string(snapshot.ID), "")
	backend.ChangeSnapshot(snapshot.ID, func(s *drover.Snapshot) {
		s.State, s.Upload, s.Problem = drover.SnapshotCreating, &drover.Upload{Snapshot: s.ID, Total: 5, Read: 1}, drover.Errorf(drover.Unavailable, "the store is away")
	})
	s.want(200, "GET", path+"/snapshots/"+string(snapshot.ID), "")
	backend.ChangeVolume(id, func(v *fleet.VolumeView) {
		v.Hydration = &drover.Hydration{Total: 5, TotalKnown: true, BytesPerSecond: 1}
	})
	s.want(200, "PUT", path+"/hydration", `{"limit":1048576,"paused":true}`)
	s.want(200, "DELETE", path+"/snapshots/"+string(snapshot.ID), "")
}

// TestEveryPathOfTheDocumentRefusesOtherMethods: a path that the table has answers 405 with the methods that it has.
func TestEveryPathOfTheDocumentRefusesOtherMethods(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	doc, err := openapi3.NewLoader().LoadFromData(s.want(200, "GET", "/v1/openapi.json", "").Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths.Map() {
		path = strings.NewReplacer("{app_name}", "a", "{machine_id}", "m", "{volume_id}", "v", "{host_id}", "h", "{migration_id}", "g", "{snapshot_id}", "s",
			"{recovery_id}", "r", "{standby_id}", "y").Replace(path)
		w := s.want(405, "PATCH", "/v1"+path, "")
		if allow := w.Header().Get("Allow"); len(strings.Split(allow, ", ")) != len(item.Operations()) {
			t.Errorf("%s: Allow is %q, and the document has %d methods", path, allow, len(item.Operations()))
		}
		if got := decode[apiv1.ErrorResponse](t, w); got.Code != drover.Invalid || got.Error == "" {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

func TestUnknownPathIsNotFoundInJSON(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	for _, path := range []string{"/", "/v1", "/v1/", "/v1/apps/", "/v2/apps", "/v1//apps", "/v1/apps/../apps", "/v1/apps/a/machines/b/sleep", "/v1/%2e%2e/x"} {
		if got := s.refused(404, "GET", path, ""); got.Code != drover.NotFound || got.Error == "" {
			t.Errorf("%s: %+v", path, got)
		}
	}
}

func TestMachineFormHasWhatClientsDereference(t *testing.T) {
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger"}`)
	m := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines",
		`{"config":{"image":"debian","schedule":"daily","checks":{"up":{"type":"tcp","port":1}}}}`))
	backend.ChangeMachine(m.ID, func(v *fleet.MachineView) {
		v.HostStatus, v.HostSeenAt = drover.HostUnreachable, v.Machine.CreatedAt
		v.Status.Events = []drover.Event{
			{ID: "1", Type: "launch", Status: drover.StateCreated, At: v.Machine.CreatedAt},
			{ID: "2", Type: "exit", Status: drover.StateStopped, At: v.Machine.CreatedAt, Request: map[string]any{"exit_code": 3}}}
	})
	var raw map[string]json.RawMessage
	w := s.want(200, "GET", "/v1/apps/ledger/machines/"+string(m.ID), "")
	if err := json.Unmarshal(w.Body.Bytes(), &raw); err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{"host_status": `"unreachable"`, "state": `"started"`, "region": `"north"`, "host": `"h1"`, "app": `"ledger"`,
		"created_at": `"2026-03-01T12:00:00Z"`, "version": string(raw["instance_id"])} {
		if string(raw[field]) != want {
			t.Errorf("%s is %s, want %s", field, raw[field], want)
		}
	}
	got := decode[apiv1.Machine](t, w)
	if len(got.Events) != 2 || got.Events[0].ID != "2" || got.Events[0].Timestamp != 1772366400000 {
		t.Errorf("events are not newest first, in milliseconds: %+v", got.Events)
	}
	if exit, ok := got.Events[0].Request["exit_event"].(map[string]any); !ok || exit["exit_code"] != 3.0 {
		t.Errorf("the exit has no exit_event: %+v", got.Events[0].Request)
	}
	if len(got.Checks) != 1 || got.Checks[0].Status != "critical" || got.Checks[0].UpdatedAt.IsZero() {
		t.Errorf("a check that was never made is not critical: %+v", got.Checks)
	}
	if raw["config"] != nil || !strings.Contains(string(raw["incomplete_config"]), `"schedule":"daily"`) {
		t.Errorf("of a host that does not answer the config is %s, the incomplete one %s", raw["config"], raw["incomplete_config"])
	}
	if got.Config.Image != "debian" || got.HostSeenAt.IsZero() {
		t.Errorf("read as %+v", got)
	}
	backend.ChangeMachine(m.ID, func(v *fleet.MachineView) { v.HostStatus = drover.HostOK })
	clear(raw)
	if err := json.Unmarshal(s.want(200, "GET", "/v1/apps/ledger/machines/"+string(m.ID), "").Body.Bytes(), &raw); err != nil {
		t.Fatal(err)
	}
	if raw["incomplete_config"] != nil || !strings.Contains(string(raw["config"]), `"schedule":"daily"`) {
		t.Errorf("a field that is not known was lost: %s", raw["config"])
	}
}

// TestAnAppHasTheNumbersThatClientsRead: numbers, as the official client decodes them, and the network also where it is the default.
func TestAnAppHasTheNumbersThatClientsRead(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	const form = `"internal_numeric_id":[1-9][0-9]*\b.*"network":"%s"`
	s.want(201, "POST", "/v1/apps", `{"name":"ledger","org_slug":"personal","network":""}`)
	s.want(201, "POST", "/v1/apps", `{"name":"walled","org_slug":"personal","network":"inner"}`)
	for path, network := range map[string]string{"/v1/apps/ledger": "", "/v1/apps/walled": "inner"} {
		got := s.want(200, "GET", path, "").Body.String()
		for _, want := range []string{fmt.Sprintf(form, network), `"organization":\{"name":"personal","slug":"personal","internal_numeric_id":[1-9][0-9]*\}`} {
			if !regexp.MustCompile(want).MatchString(got) {
				t.Errorf("%s: no %s in %s", path, want, got)
			}
		}
	}
	for _, a := range decode[apiv1.ListAppsResponse](t, s.want(200, "GET", "/v1/apps", "")).Apps {
		if a.InternalNumericID == 0 || a.Organization.InternalNumericID == 0 {
			t.Errorf("in the list: %+v", a)
		}
	}
}

// TestAnAddressMayEndInASlash: a client that has the server's address with a slash at its end puts two before the path.
func TestAnAddressMayEndInASlash(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	s.want(201, "POST", "//v1/apps", `{"name":"ledger"}`)
	m := decode[apiv1.Machine](t, s.want(200, "POST", "///v1/apps/ledger/machines", image))
	path := "//v1/apps/ledger/machines/" + string(m.ID)
	s.want(204, "POST", path+"/metadata/a%2Fb", `{"value":"quoted"}`)
	if got := decode[map[string]string](t, s.want(200, "GET", path+"/metadata", "")); got["a/b"] != "quoted" {
		t.Errorf("the metadata: %v", got)
	}
	s.want(404, "GET", "/v1//apps", "")
}

func TestListsAreNeverNull(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger"}`)
	for _, path := range []string{"/v1/apps/ledger/machines", "/v1/apps/ledger/volumes", "/v1/apps/ledger/volumes?deleted=1", "/v1/apps/ledger/snapshots", "/v1/operator/migrations", "/v1/operator/hosts/h2/layers",
		"/v1/operator/hosts/h2/machines"} {
		if got := strings.TrimSpace(s.want(200, "GET", path, "").Body.String()); got != "[]" {
			t.Errorf("%s: %s", path, got)
		}
	}
}

func TestListFilters(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger"}`)
	s.want(200, "POST", "/v1/apps/ledger/machines", `{"name":"n","config":{"image":"debian","metadata":{"role":"web"}}}`)
	gone := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", `{"name":"s","host":"h2","config":{"image":"debian"}}`))
	s.want(200, "DELETE", "/v1/apps/ledger/machines/"+string(gone.ID)+"?force=true", "")
	for query, want := range map[string]int{"": 1, "?include_deleted=true": 2, "?region=south&include_deleted=1": 1, "?region=south": 0,
		"?metadata.role=web": 1, "?metadata.role=db": 0,
		// States that no machine here is ever in are words of the Machines API all the same: scripts name them beside others.
		"?state=created,creating,started,replacing,restarting,updating": 1, "?state=replaced&state=migrated": 0, "?state=launch_failed": 0} {
		if got := decode[[]apiv1.Machine](t, s.want(200, "GET", "/v1/apps/ledger/machines"+query, "")); len(got) != want {
			t.Errorf("%q: %d machines, want %d", query, len(got), want)
		}
	}
	if got := s.want(200, "GET", "/v1/apps/ledger/machines/"+string(gone.ID), ""); decode[apiv1.Machine](t, got).State != drover.StateDestroyed {
		t.Error("a destroyed machine is not answered for any more")
	}
}

func TestExecTranslatesCommandsAndOutput(t *testing.T) {
	backend := apitest.New()
	var asked drover.ExecRequest
	backend.Exec = func(req drover.ExecRequest) (drover.ExecResult, error) {
		asked = req
		return drover.ExecResult{Stdout: []byte{'o', 0xff}, Stderr: []byte("e"), ExitCode: 3}, nil
	}
	s := newServer(t, api.Config{Backend: backend})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger"}`)
	m := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", image))
	path := "/v1/apps/ledger/machines/" + string(m.ID) + "/exec"

	text := decode[apiv1.ExecResult](t, s.want(200, "POST", path, `{"cmd":"sh -c 'echo \"a  b\"'","timeout":5,"stdin":"in"}`))
	if strings.Join(asked.Command, "|") != `sh|-c|echo "a  b"` || string(asked.Stdin) != "in" || asked.Timeout.Seconds() != 5 {
		t.Errorf("asked %+v", asked)
	}
	if text.Stdout != "o\uFFFD" || text.Stderr != "e" || text.ExitCode != 3 {
		t.Errorf("answered %+v", text)
	}
	exact := decode[apiv1.ExecResult](t, s.want(200, "POST", path, `{"command":["cat"],"stdin":"/wA=","encoding":"base64"}`))
	if string(asked.Stdin) != "\xff\x00" || exact.Stdout != "b/8=" {
		t.Errorf("asked %+v, answered %+v", asked, exact)
	}
}

func TestSignalsByNameAndNumber(t *testing.T) {
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger"}`)
	m := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", image))
	for _, body := range []string{`{"signal":9}`, `{"signal":"SIGKILL"}`, `{"signal":"kill"}`, `{"signal":"9"}`} {
		s.want(200, "POST", "/v1/apps/ledger/machines/"+string(m.ID)+"/signal", body)
	}
	for _, got := range backend.Signals() {
		if got.Signal != "SIGKILL" {
			t.Errorf("sent %q", got.Signal)
		}
	}
}

func TestStartAnswersThePreviousState(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger"}`)
	m := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", `{"skip_launch":true,"config":{"image":"debian"}}`))
	got := decode[apiv1.StartResult](t, s.want(200, "POST", "/v1/apps/ledger/machines/"+string(m.ID)+"/start", ""))
	if got.PreviousState != drover.StateStopped {
		t.Errorf("previous_state is %q", got.PreviousState)
	}
}

func TestHeadIsNotAllowed(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, httptest.NewRequest(http.MethodHead, "/v1/healthz", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("HEAD answered %d", w.Code)
	}
}

func TestStopTakesEveryFormOfADuration(t *testing.T) {
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger"}`)
	m := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", image))
	for body, want := range map[string]drover.StopConfig{
		``:                                    {},
		`{}`:                                  {},
		`{"timeout":null,"signal":null}`:      {},
		`{"timeout":"0s"}`:                    {},
		`{"timeout":"5s","signal":"SIGTERM"}`: {Signal: "SIGTERM", Timeout: drover.Duration(5 * time.Second)},
		`{"timeout":5000000000}`:              {Timeout: drover.Duration(5 * time.Second)},
		`{"timeout":{"Duration":"5s"}}`:       {Timeout: drover.Duration(5 * time.Second)},
		`{"timeout":{"time.Duration":5000000000}}`: {Timeout: drover.Duration(5 * time.Second)},
	} {
		s.want(200, "POST", "/v1/apps/ledger/machines/"+string(m.ID)+"/stop", body)
		v, err := backend.Machine(t.Context(), "ledger", m.ID)
		if err != nil || v.Machine.Stop != want {
			t.Errorf("%s: %+v, %v", body, v.Machine.Stop, err)
		}
	}
}

// everyOperationOfRecoveries asks what there is to ask about a dead host and standbys.
func everyOperationOfRecoveries(s *server, backend *apitest.Backend, volume string) {
	s.tb.Helper()
	s.want(200, "PUT", "/v1/apps/ledger/recovery", `{"recovery":"automatic"}`)
	path := "/v1/apps/ledger/volumes/" + volume + "/standbys"
	standby := decode[drover.Standby](s.tb, s.want(200, "POST", path, `{"host":"h2","every":"10s"}`))
	s.want(200, "GET", path, "")
	s.want(200, "GET", "/v1/apps/ledger/standbys", "")
	s.want(200, "GET", path+"/"+string(standby.ID), "")
	s.want(404, "GET", path+"/sby_1", "")
	s.want(200, "DELETE", path+"/"+string(standby.ID), "")

	s.want(412, "POST", "/v1/operator/recoveries", `{"host":"h1"}`)
	s.want(412, "POST", "/v1/operator/hosts/h1/confirm-off", `{"reason":"looked"}`)
	s.want(412, "POST", "/v1/operator/hosts/h1/fence", `{"reason":"looked"}`)
	backend.ChangeHost("h1", func(h *drover.HostInfo) { h.Status = drover.HostUnreachable })
	s.want(200, "POST", "/v1/operator/hosts/h1/confirm-off", `{"reason":"looked"}`)
	s.want(200, "POST", "/v1/operator/hosts/h1/fence", `{"reason":"looked"}`)
	s.want(200, "GET", "/v1/operator/hosts/h1/recovery", "")
	s.want(400, "POST", "/v1/operator/recoveries", `{}`)
	s.want(400, "POST", "/v1/operator/recoveries", `{"host":"h1","accept_age":"-1s"}`)
	started := decode[apiv1.RecoveryStarted](s.tb, s.want(201, "POST", "/v1/operator/recoveries", `{"host":"h1","accept_age":"1h"}`))
	if len(started.Recoveries) == 0 {
		s.tb.Fatal("nothing was begun")
	}
	s.want(200, "GET", "/v1/operator/recoveries", "")
	s.want(200, "GET", "/v1/operator/recoveries/"+string(started.Recoveries[0].ID), "")
	s.want(404, "GET", "/v1/operator/recoveries/rec_1", "")
	s.want(200, "GET", "/v1/operator/hosts/h1/kept", "")
	s.want(200, "GET", "/v1/operator/network", "")
	s.want(412, "DELETE", "/v1/operator/hosts/h2/identity", "")
	s.want(404, "DELETE", "/v1/operator/hosts/h77/identity", "")
	s.want(200, "GET", "/v1/operator/hosts/h1/key", "")
	s.want(404, "GET", "/v1/operator/hosts/h77/key", "")
	s.want(412, "POST", "/v1/operator/hosts/h1/key/cancel", "")
	s.want(200, "POST", "/v1/operator/hosts/h1/key/rotate", `{"people":true}`)
	s.want(200, "POST", "/v1/operator/hosts/h1/key/rotate", "")
	s.want(200, "POST", "/v1/operator/hosts/h1/key/cancel", "")
	s.want(200, "GET", "/v1/operator/hosts/h1/key", "")
	s.want(412, "POST", "/v1/operator/hosts/h1/key/rotate", "")
	s.want(404, "POST", "/v1/operator/hosts/h77/key/cancel", "")
	backend.ChangeHost("h1", func(h *drover.HostInfo) { h.Status = drover.HostOK })
}
