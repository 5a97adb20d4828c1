package api_test

import (
	"strings"
	"testing"

	"drover"
	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
)

// TestBadInput: every request here is refused with 400, names the field and says what would be right, and leaves nothing behind.
func TestBadInput(t *testing.T) {
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger"}`)
	m := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", image))
	const machines, volumes, migrations = "/v1/apps/ledger/machines", "/v1/apps/ledger/volumes", "/v1/operator/migrations"
	machine := machines + "/" + string(m.ID)
	config := func(rest string) string { return `{"config":{"image":"debian",` + rest + `}}` }

	for _, c := range []struct{ path, body, field, text string }{
		{machines, ``, "", "has no body"},
		{machines, `   `, "", "has no body"},
		{machines, `null`, "", "expected a JSON object"},
		{machines, `[]`, "", "expected a JSON object"},
		{machines, `"text"`, "", "expected a JSON object"},
		{machines, `{"config":`, "", "malformed JSON at line 1, column 10"},
		{machines, "{\n \"config\": {,}\n}", "", "malformed JSON at line 2, column 13"},
		{machines, `{} {}`, "", "malformed JSON"},
		{machines, "{\n\"config\":{\"image\":\"a\",\"env\":{\"A\":\"\xff\"}}}", "", "not UTF-8 at line 2, column 35"},
		{machine + "/exec", "{\"cmd\":\"cat\",\"stdin\":\"\xc3\"}", "", "not UTF-8 at line 1, column 23"},
		{machines, `{'config':1}`, "", "looking for beginning of object key"},
		{machines, "{\"name\":\"a\x00\"}", "", "malformed JSON"},
		{machines, strings.Repeat(`{"config":`, 100) + "1" + strings.Repeat("}", 100), "", "nested 100 levels deep; at most 64"},
		{machines, strings.Repeat(`[`, 500_000), "", "nested 500000 levels deep"},
		{machines, `{}`, "config.image", "is empty"},
		{machines, `{"config":null}`, "config.image", "is empty"},
		{machines, `{"config":{"image":"  "}}`, "config.image", "is empty"},
		{machines, `{"config":"x"}`, "config", "expected an object, got the text"},
		{machines, `{"config":[]}`, "config", "expected an object, got an array"},
		{machines, `{"Config":{"IMAGE":7}}`, "config.image", "expected a text, got the number 7"},
		{machines, `{"name":7,"config":{}}`, "name", "expected a text, got the number 7"},
		{machines, `{"name":"UPPER","config":{"image":"a"}}`, "name", "lower-case letters"},
		{machines, `{"name":"` + strings.Repeat("a", 64) + `","config":{"image":"a"}}`, "name", "1 to 63"},
		{machines, `{"region":{},"config":{}}`, "region", "expected a text, got an object"},
		{machines, `{"region":"../x","config":{"image":"a"}}`, "region", "lower-case letters"},
		{machines, `{"host":"a.b","config":{"image":"a"}}`, "host", "lower-case letters"},
		{machines, `{"skip_launch":"yes","config":{}}`, "skip_launch", "expected true or false"},
		{machines, config(`"guest":5`), "config.guest", "expected an object"},
		{machines, config(`"guest":{"cpus":"two"}`), "config.guest.cpus", `expected a whole number, got the text "two"`},
		{machines, config(`"guest":{"cpus":1.5}`), "config.guest.cpus", "got the number 1.5"},
		{machines, config(`"guest":{"cpus":1e400}`), "config.guest.cpus", "whole number"},
		{machines, config(`"guest":{"memory_mb":99999999999999999999}`), "config.guest.memory_mb", "whole number"},
		{machines, config(`"env":["A=b"]`), "config.env", "expected an object, got an array"},
		{machines, config(`"env":{"A":1}`), "config.env.A", "expected a text, got the number 1"},
		{machines, config(`"metadata":{"a":{}}`), "config.metadata.a", "expected a text"},
		{machines, config(`"init":{"cmd":"ls"}`), "config.init.cmd", "expected an array"},
		{machines, config(`"init":{"cmd":["ls",1]}`), "config.init.cmd[1]", "expected a text"},
		{machines, config(`"init":{"entrypoint":{}}`), "config.init.entrypoint", "expected an array"},
		{machines, config(`"init":{"exec":[null,[]]}`), "config.init.exec[1]", "expected a text"},
		{machines, config(`"init":{"user":5}`), "config.init.user", "expected a text"},
		{machines, config(`"mounts":{}`), "config.mounts", "expected an array"},
		{machines, config(`"mounts":[5]`), "config.mounts[0]", "expected an object"},
		{machines, config(`"mounts":[{"volume":5}]`), "config.mounts[0].volume", "expected a text"},
		{machines, config(`"restart":"always"`), "config.restart", "expected an object"},
		{machines, config(`"stop_config":{"signal":9}`), "config.stop_config.signal", "expected a text"},
		{machines, config(`"stop_config":{"timeout":"15"}`), "config.stop_config.timeout", "is not a duration"},
		{machines, config(`"stop_config":{"timeout":true}`), "config.stop_config.timeout", "is not a duration"},
		{machines, config(`"checks":[]`), "config.checks", "expected an object"},
		{machines, config(`"checks":{"up":1}`), "config.checks.up", "expected an object"},
		{machines, config(`"checks":{"up":{"type":"tcp","port":"80"}}`), "config.checks.up.port", "whole number"},
		{machines, config(`"checks":{"up":{"type":"tcp","port":80,"interval":"5"}}`), "config.checks.up.interval", "is not a duration"},
		{machines, config(`"auto_destroy":1`), "config.auto_destroy", "expected true or false"},

		{machine, `{"name":"other","config":{"image":"debian"}}`, "name", "cannot change"},
		{machine, `{"region":"south","config":{"image":"debian"}}`, "region", "cannot change"},
		{machine, `{"current_version":"a/b","config":{"image":"debian"}}`, "current_version", "instance ID"},
		{machine + "/stop", `{"signal":"nope"}`, "signal", "expected a signal's name"},
		{machine + "/stop", `{"signal":{}}`, "signal", "expected a signal's name"},
		{machine + "/stop", `{"timeout":"soon"}`, "timeout", "is not a duration"},
		{machine + "/restart?force_stop=maybe", ``, "force_stop", "expected true or false"},
		{machine + "/restart?signal=SIGFOO", ``, "signal", "signal's name"},
		{machine + "/restart?timeout=soon", ``, "timeout", "a duration"},
		{machine + "/restart?timeout=11m", ``, "timeout", "to 10m0s"},
		{machine + "/lease?ttl=soon", ``, "ttl", "whole number"},
		{machine + "/lease?ttl=0", ``, "ttl", "whole number from 1"},
		{machine + "/lease?ttl=86401", ``, "ttl", "86400"},
		{machine + "/lease", `{"ttl":-1}`, "ttl", "seconds from 1"},
		{machine + "/lease", `{"ttl":"60"}`, "ttl", "whole number"},
		{machine + "/lease", `{"description":5}`, "description", "a text"},
		{machine + "/metadata/role", `{"value":5}`, "value", "a text"},
		{machine + "/metadata/drover.move", `{"value":"perhaps"}`, "value", "expected any"},
		{machines, `{"lease_ttl":-1,"config":{"image":"debian"}}`, "lease_ttl", "seconds from 0"},
		{machine, `{"lease_ttl":86401,"config":{"image":"debian"}}`, "lease_ttl", "86400"},
		{machine + "/exec", ``, "", "has no body"},
		{machine + "/exec", `{}`, "command", "is empty"},
		{machine + "/exec", `{"command":[""]}`, "command", "is empty"},
		{machine + "/exec", `{"command":"ls"}`, "command", "expected an array"},
		{machine + "/exec", `{"command":["\u0000"]}`, "command", "zero byte"},
		{machine + "/exec", `{"cmd":"a 'b"}`, "cmd", "quotation"},
		{machine + "/exec", `{"cmd":"ls","timeout":601}`, "timeout", "600"},
		{machine + "/exec", `{"cmd":"ls","timeout":"5s"}`, "timeout", "whole number"},
		{machine + "/exec", `{"cmd":"ls","stdin":"%","encoding":"base64"}`, "stdin", "not base64"},
		{machine + "/exec", `{"cmd":"ls","encoding":"hex"}`, "encoding", "base64"},
		{machine + "/signal", `{}`, "signal", "expected a signal's name"},
		{machine + "/signal", `{"signal":0}`, "signal", "expected a signal's name"},
		{machine + "/signal", `{"signal":999}`, "signal", "expected a signal's name"},
		{machine + "/signal", `{"signal":1.5}`, "signal", "expected a signal's name"},

		{volumes, `{}`, "name", "expected 1 to 30"},
		{volumes, `{"name":"a-b","size_gb":1}`, "name", "underscores"},
		{volumes, `{"name":"data"}`, "size_gb", "is missing"},
		{volumes, `{"name":"data","size_gb":"1"}`, "size_gb", "whole number"},
		{volumes, `{"name":"data","size_gb":-1}`, "size_gb", "expected 1 to"},
		{volumes, `{"name":"data","size_gb":9000000000}`, "size_gb", "expected 1 to"},
		{volumes, `{"name":"data","size_gb":1,"size":4096}`, "size", "one of them"},
		{volumes, `{"name":"data","size":1}`, "size", "is 1 B; expected 1 MiB to 64 TiB"},
		{volumes, `{"name":"data","size":1048577}`, "size", "multiple of 4096"},
		{volumes, `{"name":"data","size_gb":1,"region":"X"}`, "region", "lower-case"},
		{volumes, `{"name":"data","size_gb":1,"snapshot_id":"s"}`, "snapshot_id", "16 digits"},
		{volumes, `{"name":"data","size_gb":1,"source_volume_id":"s"}`, "source_volume_id", "16 digits"},
		{volumes, `{"snapshot_id":"vs_0000000000000001","source_volume_id":"vol_0000000000000001"}`, "snapshot_id", "one of them"},
		{volumes, `{"name":"data","size_gb":1,"fstype":"raw"}`, "fstype", "ext4"},
		{volumes, `{"name":"data","size_gb":1,"encrypted":"yes"}`, "encrypted", "true or false"},
		{volumes, `{"name":"data","size_gb":1,"auto_backup_enabled":1}`, "auto_backup_enabled", "true or false"},
		{volumes, `{"name":"data","size_gb":1,"snapshot_retention":0}`, "snapshot_retention", "1 to 60"},
		{volumes, `{"name":"data","size_gb":1,"snapshot_retention":61}`, "snapshot_retention", "1 to 60"},
		{volumes, `{"name":"data","size_gb":1,"snapshot_interval":"1s"}`, "snapshot_interval", "expected 1m0s to"},
		{volumes, `{"name":"data","size_gb":1,"snapshot_interval":"daily"}`, "snapshot_interval", "not a duration"},
		{volumes, `{"name":"data","size_gb":1,"limits":5}`, "limits", "an object"},
		{volumes, `{"name":"data","size_gb":1,"limits":{"iops":-1}}`, "limits.iops", "0 for no limit"},
		{volumes, `{"name":"data","size_gb":1,"limits":{"bytes_per_second":1}}`, "limits.bytes_per_second", "4096 to"},
		{volumes, `{"name":"data","size_gb":1,"limits":{"iops_max":1}}`, "limits.iops_max", "expected one of bytes_per_second, iops"},
		{volumes, `{"name":"data","size_gb":1,"snapshot_retension":9}`, "snapshot_retension", "is not a field"},
		{volumes, `{"name":"data","size_gb":1,"compute":"big"}`, "compute", "an object"},

		{"/v1/apps", `{}`, "app_name", "is missing"},
		{"/v1/apps", `{"app_name":"a b"}`, "app_name", "lower-case"},
		{"/v1/apps", `{"name":"-a"}`, "name", "lower-case"},
		{"/v1/apps", `{"app_name":"a","org_slug":"A"}`, "org_slug", "lower-case"},
		{"/v1/apps", `{"app_name":"a","network":"A"}`, "network", "lower-case"},

		{migrations, `{}`, "machine", "14 digits"},
		{migrations, `{"machine":"x"}`, "machine", "14 digits"},
		{migrations, `{"machine":"` + string(m.ID) + `","target":"H2"}`, "target", "lower-case"},
		{migrations, `{"machine":"` + string(m.ID) + `","target":["h2"]}`, "target", "expected a text"},
	} {
		got := s.refused(400, "POST", c.path, c.body)
		if got.Code != drover.Invalid || got.Field != c.field || !strings.Contains(got.Error, c.text) {
			body := c.body[:min(len(c.body), 100)]
			t.Errorf("POST %s %s: field %q, %q; want field %q and %q", c.path, body, got.Field, got.Error, c.field, c.text)
		}
	}
	for _, c := range []struct{ path, field string }{
		{machine + "/wait?timeout=0", "timeout"}, {machine + "/wait?timeout=61", "timeout"}, {machine + "/wait?timeout=5s", "timeout"},
		{machine + "/wait?timeout=-1", "timeout"}, {machine + "/wait?state=happy", "state"}, {machine + "/wait?instance_id=%2F", "instance_id"},
		{machine + "/logs?tail=-1", "tail"}, {machine + "/logs?tail=9999", "tail"}, {machine + "/logs?offset=-2", "offset"}, {machine + "/logs?offset=x", "offset"},
		{machine + "/logs?wait=1h", "wait"}, {machine + "/logs?wait=99999999999999999999", "wait"}, {machine + "/logs?wait=soon", "wait"},
		{machines + "?include_deleted=perhaps", "include_deleted"}, {machines + "?region=X", "region"},
		{machines + "?state=happy", "state"}, {machines + "?state=started,happy", "state"}, {machines + "?summary=2", "summary"}, {machines + "?order=up", "order"},
		{machines + "?limit=0", "limit"}, {machines + "?limit=x", "limit"}, {machines + "?cursor=x", "cursor"}, {machines + "?cursor=MS4y", "cursor"},
		{machine + "/ps?sort_by=age", "sort_by"}, {machine + "/ps?order=up", "order"}, {migrations + "?machine=x", "machine"},
	} {
		if got := s.refused(400, "GET", c.path, ""); got.Code != drover.Invalid || got.Field != c.field {
			t.Errorf("GET %s: field %q, %q", c.path, got.Field, got.Error)
		}
	}
	if apps, machines, volumes := backend.Count(); apps != 1 || machines != 1 || volumes != 0 {
		t.Errorf("bad input left something behind: %d apps, %d machines, %d volumes", apps, machines, volumes)
	}
}

func TestBodyLimit(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger"}`)
	fits := `{"config":{"image":"debian","env":{"A":"` + strings.Repeat("x", 1<<20-60) + `"}}}`
	s.want(200, "POST", "/v1/apps/ledger/machines", fits)
	got := s.refused(413, "POST", "/v1/apps/ledger/machines", fits+strings.Repeat(" ", 100))
	if got.Code != drover.Invalid || !strings.Contains(got.Error, "1048576 bytes") {
		t.Errorf("%+v", got)
	}
}

func TestRefusalsOfTheBackend(t *testing.T) {
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger"}`)
	m := decode[apiv1.Machine](t, s.want(200, "POST", "/v1/apps/ledger/machines", image))
	machine := "/v1/apps/ledger/machines/" + string(m.ID)
	move := `{"machine":"` + string(m.ID) + `","target":"`
	s.want(201, "POST", "/v1/operator/migrations", move+`h2"}`)

	for _, c := range []struct {
		status       int
		method, path string
		body         string
		code         drover.Code
		field, text  string
	}{
		{422, "POST", "/v1/apps", `{"app_name":"ledger"}`, drover.Exists, "app_name", "taken"},
		{404, "POST", "/v1/apps/ledger/machines", `{"config":{"image":"missing"}}`, drover.NotFound, "config.image", "does not exist"},
		{422, "POST", "/v1/apps/ledger/machines", `{"config":{"image":"a","guest":{"memory_mb":8192}}}`, drover.Exhausted, "config.guest.memory_mb", "memory free"},
		{404, "POST", "/v1/apps/ledger/machines", `{"host":"h9","config":{"image":"a"}}`, drover.NotFound, "host", "h9"},
		{409, "POST", machine, `{"current_version":"1","config":{"image":"a"}}`, drover.Conflict, "", "version"},
		{412, "DELETE", machine, "", drover.Precondition, "", "started"},
		{412, "POST", "/v1/apps/ledger/undelete", "", drover.Precondition, "", "was not destroyed"},
		{400, "DELETE", "/v1/apps/ledger?now=soon", "", drover.Invalid, "now", "true or false"},
		{409, "POST", "/v1/operator/migrations", move + `h2"}`, drover.Conflict, "", "moving already"},
		{400, "POST", "/v1/operator/migrations", move + `h1"}`, drover.Invalid, "target", "already"},
		{404, "POST", "/v1/operator/migrations", move + `h9"}`, drover.NotFound, "target", "h9"},
		{404, "GET", "/v1/apps/nope", "", drover.NotFound, "", "app not found"},
		{404, "GET", "/v1/apps/N%00pe", "", drover.NotFound, "", "app not found"},
		{404, "GET", "/v1/apps/ledger/machines/00000000000000", "", drover.NotFound, "", "machine not found"},
		{404, "POST", "/v1/apps/ledger/machines/xyz/start", "", drover.NotFound, "", "machine not found"},
		{404, "GET", "/v1/apps/ledger/volumes/vol_x", "", drover.NotFound, "", "volume not found"},
		{404, "GET", "/v1/operator/hosts/h9", "", drover.NotFound, "", "h9"},
		{404, "GET", "/v1/operator/hosts/a%2fb", "", drover.NotFound, "", "host not found"},
		{404, "GET", "/v1/operator/migrations/mig_0", "", drover.NotFound, "", "migration not found"},
	} {
		got := s.refused(c.status, c.method, c.path, c.body)
		if got.Code != c.code || got.Field != c.field || !strings.Contains(got.Error, c.text) {
			t.Errorf("%s %s %s: %+v", c.method, c.path, c.body, got)
		}
	}
	if got := s.refused(422, "POST", "/v1/apps", `{"name":"ledger"}`); got.Status != apiv1.StatusNameTaken {
		t.Errorf("a taken name has the status %q", got.Status)
	}
}
