package main

import (
	"strings"
	"testing"

	"drover"
	"drover/api/apitest"
)

func TestSecretsFromStdin(t *testing.T) {
	values, err := readSecrets(strings.NewReader("# a comment\n\nA=one\n export B = two \nC=\"th ree\"\nD='x=y'\nE=\"\"\"first\n  second\n\"\"\"\nF=\"\"\"short\"\"\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"A": "one", "B": " two", "C": "th ree", "D": "x=y", "E": "first\n  second\n", "F": "short"}
	for name, value := range want {
		if values[name] == nil || *values[name] != value {
			t.Errorf("%s is not %q", name, value)
		}
	}
	if len(values) != len(want) {
		t.Errorf("%d values", len(values))
	}
	for text, names := range map[string]string{"": "no line", "A=1\nhunter2\n": "line 2", "\nA=\"\"\"hunter2\n": "line 2"} {
		if _, err := readSecrets(strings.NewReader(text)); !drover.Is(err, drover.Invalid) || !strings.Contains(err.Error(), names) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// The restart is the control side's work: it goes on without whoever changed the secrets.
func TestSecretsAreBroughtToMachinesByADeploy(t *testing.T) {
	backend := apitest.New()
	r := runner{vars: fleetOf(t, backend), stdin: "TOKEN=hunter2\n"}
	for _, args := range []string{"app create ledger", "machine create debian --app ledger --name a", "machine create debian --app ledger --name b"} {
		if got := r.run(t.Context(), strings.Fields(args)...); got.code != 0 {
			t.Fatal(got)
		}
	}
	got := r.run(t.Context(), "secrets", "import", "--app", "ledger", "--restart", "--detach", "--json")
	if got.code != 0 || strings.Contains(got.stdout+got.stderr, "hunter2") {
		t.Fatalf("%+v", got)
	}
	deploys, err := backend.Deploys(t.Context(), "ledger")
	if err != nil || len(deploys) != 1 || len(deploys[0].Items) != 2 || !strings.Contains(got.stdout, string(deploys[0].ID)) {
		t.Fatalf("%+v, %v; %s", deploys, err, got.stdout)
	}
	for _, i := range deploys[0].Items {
		if i.Action != drover.DeployRestart {
			t.Errorf("%+v", i)
		}
	}
	backend.ChangeDeploy(deploys[0].ID, func(d *drover.Deploy) {
		d.State, d.Problem = drover.DeployFailed, drover.Errorf(drover.Precondition, "machine a is not healthy")
	})
	// What failed is told as by every deploy.
	if got := r.run(t.Context(), "deploy", "follow", string(deploys[0].ID), "--app", "ledger"); got.code != 5 || !strings.Contains(got.stderr, "not healthy") {
		t.Errorf("%+v", got)
	}
}

// A name that was mistyped does not look like one that was removed.
func TestUnsetNamesWhatThereIsNot(t *testing.T) {
	r := runner{vars: fleetOf(t, apitest.New())}
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"app create ledger", 0, ""},
		{"secrets set --app ledger TOKEN=x", 0, "version"},
		{"secrets unset --app ledger TOKN", 0, "no secret TOKN"},
		{"secrets list --app ledger", 0, "TOKEN"},
		{"secrets unset --app ledger TOKEN", 0, "version"},
		{"secrets unset --app ledger TOKEN", 0, "no secret TOKEN"},
		{"secret unset --app nowhere TOKEN", 3, "nowhere"},
	} {
		if got := r.run(t.Context(), strings.Fields(c.args)...); got.code != c.code || !strings.Contains(got.stdout+got.stderr, c.says) {
			t.Errorf("%s: %+v", c.args, got)
		}
	}
}
