package main

import (
	"strings"
	"testing"

	"drover"
	"drover/api/apitest"
	"drover/fleet"
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

// A machine that does not get healthy holds up the rest, which are named.
func TestARollingRestartStopsAtTheFirstThatIsNotHealthy(t *testing.T) {
	backend := apitest.New()
	r := runner{vars: fleetOf(t, backend), stdin: "TOKEN=hunter2\n"}
	for _, args := range []string{"app create ledger", "machine create debian --app ledger --name a", "machine create debian --app ledger --name b"} {
		if got := r.run(t.Context(), strings.Fields(args)...); got.code != 0 {
			t.Fatal(got)
		}
	}
	backend.ChangeMachine("d0000000000001", func(v *fleet.MachineView) {
		v.Status.Checks = []drover.CheckStatus{{Name: "up", Status: "critical", UpdatedAt: testNow()}}
	})
	got := r.run(t.Context(), "secrets", "import", "--app", "ledger", "--restart", "--timeout", "0s", "--json")
	if got.code != 7 || !strings.Contains(got.stdout, `"restarted": []`) || !strings.Contains(got.stdout, "d0000000000002") ||
		!strings.Contains(got.stderr, "of 2 machines 0 were restarted") || strings.Contains(got.stdout+got.stderr, "hunter2") {
		t.Errorf("%+v", got)
	}
}
