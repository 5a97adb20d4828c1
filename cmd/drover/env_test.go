package main

import (
	"encoding/json"
	"maps"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"drover/api/apitest"
)

// TestEnvLeavesNoVariableThatLeaks: every variable that says where a client sends something says that it sends it here, or nowhere.
func TestEnvLeavesNoVariableThatLeaks(t *testing.T) {
	vars := fleetOf(t, apitest.New())
	got := runner{vars: vars}.run(t.Context(), "env", "--json")
	var all map[string]string
	if err := json.Unmarshal([]byte(got.stdout), &all); err != nil || got.code != 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	base := vars[envAPI]
	host, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"DROVER_API_URL": base, "DROVER_API_TOKEN": apitest.OperatorToken, "FLY_API_TOKEN": apitest.OperatorToken, "FLY_ACCESS_TOKEN": apitest.OperatorToken,
		"FLY_FLAPS_BASE_URL": base, "FLY_API_BASE_URL": base, "FLY_UIEX_BASE_URL": base, "FLY_API_HOSTNAME": base, "FLY_METRICS_BASE_URL": base,
		"FLY_SYNTHETICS_BASE_URL": base, "FLY_STATUSPAGE_UNRESOLVED_INCIDENTS_URL": base + "/api/v1/incidents", "FLY_REGISTRY_HOST": host.Host,
		"FLY_TRACE_COLLECTOR_URL": "127.0.0.1", "FLY_SEND_METRICS": "0", "FLY_SYNTHETICS_AGENT": "0", "FLY_NO_INCIDENTS_CHECK": "1", "FLY_NO_UPDATE_CHECK": "1",
		"FLY_CONFIG_DIR": vars["HOME"] + "/.drover/clients/" + strings.ReplaceAll(host.Host, ":", "-")}
	if !maps.Equal(all, want) {
		t.Errorf("got %v\nwant %v", all, want)
	}
}

// TestEnvIsReadByAShell: a shell that evaluates what is printed has the variables, whatever is in them.
func TestEnvIsReadByAShell(t *testing.T) {
	vars := map[string]string{envAPI: "http://drover.test:4280/v1/", envToken: `it's a "token" with $HOME and \`, "HOME": t.TempDir()}
	got := runner{vars: vars}.run(t.Context(), "env")
	if got.code != 0 {
		t.Fatalf("%+v", got)
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", got.stdout+`printf '%s|%s' "$FLY_API_TOKEN" "$FLY_FLAPS_BASE_URL"`).Output()
	if err != nil || string(out) != vars[envToken]+"|http://drover.test:4280" {
		t.Errorf("%q, %v", out, err)
	}
	fish := runner{vars: vars}.run(t.Context(), "env", "--fish")
	if !strings.Contains(fish.stdout, `set -gx FLY_API_TOKEN 'it\'s a "token" with $HOME and \\';`) || fish.code != 0 {
		t.Errorf("%+v", fish)
	}
}

// TestEnvRunsACommand: the variables win over those that are there, and the exit code is the command's.
func TestEnvRunsACommand(t *testing.T) {
	t.Setenv("FLY_ACCESS_TOKEN", "of another place")
	vars := fleetOf(t, apitest.New())
	got := runner{vars: vars, stdin: "in\n"}.run(t.Context(), "env", "--", "sh", "-c", `cat; echo "$FLY_ACCESS_TOKEN $FLY_API_BASE_URL"; echo err >&2; exit 7`)
	if got.code != 7 || got.stdout != "in\n"+apitest.OperatorToken+" "+vars[envAPI]+"\n" || got.stderr != "err\n" {
		t.Errorf("%+v", got)
	}
}

func TestEnvThatIsRefused(t *testing.T) {
	vars := fleetOf(t, apitest.New())
	alone := maps.Clone(vars)
	delete(alone, envToken)
	for _, c := range []struct {
		vars map[string]string
		args []string
		code int
		says string
	}{
		{alone, []string{"env"}, 5, "there is no token"},
		{vars, []string{"env", "fly", "status"}, 2, `unexpected argument "fly"; a command comes after --`},
		{vars, []string{"env", "--", "/nowhere/at/all"}, 2, "/nowhere/at/all"},
		{map[string]string{envAPI: "nonsense", envToken: "x"}, []string{"env"}, 2, "nonsense"},
	} {
		got := runner{vars: c.vars}.run(t.Context(), c.args...)
		if got.code != c.code || !strings.Contains(got.stderr, c.says) || slices.Contains(strings.Fields(got.stdout), "export") {
			t.Errorf("%v: %+v", c.args, got)
		}
	}
}
