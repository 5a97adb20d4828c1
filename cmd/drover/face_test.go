package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/fleet"
)

func TestWatchShowsWhatChanges(t *testing.T) {
	backend, r, id := prepared(t)
	ctx, cancel := context.WithCancel(t.Context())
	looks, looksSince := 0, 0
	changed := make(chan struct{})
	backend.Fail = func(method string) error {
		if method != "Machines" {
			return nil
		}
		switch looks++; looks {
		case 3:
			return drover.Errorf(drover.Unavailable, "the store does not answer")
		case 5: // the fourth look has shown the machine as it was
			go func() {
				backend.ChangeMachine(id, func(v *fleet.MachineView) { v.Status.State = drover.StateStopped })
				close(changed)
			}()
		}
		select {
		case <-changed:
			if looksSince++; looksSince == 3 { // the second one saw all of the change, and was printed
				cancel()
			}
		default:
		}
		return nil
	}
	got := r.run(ctx, "machine", "list", "-a", "ledger", "--watch")
	parts := strings.Split(got.stdout, "\n\n")
	if got.code != 130 || len(parts) < 4 || !strings.Contains(parts[0], "started") || !strings.Contains(parts[1], "the store does not answer") ||
		!strings.Contains(parts[len(parts)-1], "stopped") {
		t.Errorf("%+v", got)
	}
	if got := r.run(t.Context(), "app", "show", "nope", "--watch"); got.code != 3 {
		t.Errorf("what is not there is not waited for: %+v", got)
	}
}

func TestTablesFitTheTerminal(t *testing.T) {
	_, r, _ := prepared(t)
	wide := func(width int, args ...string) string {
		var out bytes.Buffer
		execute(t.Context(), args, environment{stdin: strings.NewReader(""), stdout: &out, stderr: io.Discard, getenv: func(name string) string { return r.vars[name] },
			now: testNow, width: width, fit: true, interval: time.Millisecond})
		return out.String()
	}
	whole := wide(1000, "machine", "list")
	for _, width := range []int{120, 80, 60, 40, 20} {
		for line := range strings.Lines(wide(width, "machine", "list")) {
			if len(strings.TrimSuffix(line, "\n")) > width {
				t.Errorf("on %d columns: %q", width, line)
			}
		}
		if !strings.Contains(wide(width, "machine", "list"), "d0000000000001") {
			t.Errorf("the ID is cut on %d columns", width)
		}
	}
	if wide(40, "machine", "list", "--wide") != whole {
		t.Error("--wide cuts")
	}
}

// TestANarrowTableLeavesColumnsOutAndSaysSo: what is missed least goes, and what is wrong with a host stays.
func TestANarrowTableLeavesColumnsOutAndSaysSo(t *testing.T) {
	_, r, _ := prepared(t)
	on := func(width int, args ...string) []string {
		var out bytes.Buffer
		execute(t.Context(), args, environment{stdin: strings.NewReader(""), stdout: &out, stderr: io.Discard, getenv: func(name string) string { return r.vars[name] },
			now: testNow, width: width, fit: true, interval: time.Millisecond})
		return strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	}
	narrow := on(80, "host", "list")
	if !strings.Contains(narrow[0], "CONDITIONS") || strings.Contains(narrow[0], "ROLES") || strings.Contains(strings.Join(narrow, "\n"), cutMark) {
		t.Errorf("on 80 columns: %q", narrow)
	}
	if last := narrow[len(narrow)-1]; !strings.HasPrefix(last, "(--wide shows ROLES, ACCEL") {
		t.Errorf("what was left out is not said: %q", last)
	}
	for _, wide := range [][]string{on(400, "host", "list"), on(80, "host", "list", "--wide")} {
		if !strings.Contains(wide[0], "ROLES") || !strings.HasPrefix(wide[len(wide)-1], "h") {
			t.Errorf("with room: %q", wide)
		}
	}
}

// TestCommandsHaveTheNamesOfOtherTools: nouns in their plural, and the short words.
func TestCommandsHaveTheNamesOfOtherTools(t *testing.T) {
	_, r, id := prepared(t)
	for _, words := range []string{"apps ls", "machines ls -a ledger", "volumes ls", "volume snapshots ls", "secret ls -a ledger", "hosts ls", "tokens ls", "machines status " + string(id),
		"machine rm --force -y " + string(id), "apps rm -y --now ledger"} {
		if got := r.run(t.Context(), strings.Fields(words)...); got.code != 0 {
			t.Errorf("%s: %+v", words, got)
		}
	}
}

func TestTheProgramTellsItsVersion(t *testing.T) {
	r := runner{vars: map[string]string{}}
	want := version()
	if got := r.run(t.Context(), "version"); got.code != 0 || !strings.HasPrefix(got.stdout, "drover "+want+" (go") {
		t.Errorf("%+v", got)
	}
	if got := r.run(t.Context(), "--version"); got.code != 0 || got.stdout != "drover "+want+"\n" {
		t.Errorf("%+v", got)
	}
	var v versionInfo
	if got := r.run(t.Context(), "version", "--json"); json.Unmarshal([]byte(got.stdout), &v) != nil || v.Version != want || v.Go == "" || v.Platform == "" {
		t.Errorf("%+v", got)
	}
}

func TestNamesAreCompleted(t *testing.T) {
	backend, r, id := prepared(t)
	if _, _, err := backend.MintToken(t.Context(), fleet.NewToken{Name: "ci", Organization: "acme"}); err != nil {
		t.Fatal(err)
	}
	if _, err := backend.CreateMachine(t.Context(), fleet.CreateMachine{App: "ledger", Name: "grouped", Config: drover.MachineConfig{Image: "debian:12",
		Metadata: map[string]string{drover.LabelProcessGroup: "web"}}}); err != nil {
		t.Fatal(err)
	}
	if got := r.run(t.Context(), "secrets", "set", "-a", "ledger", "TOKEN=x"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	for _, c := range []struct {
		args []string
		want string
		not  string
	}{
		{[]string{"machine", "stop", ""}, string(id) + "\tone of ledger, started", ""},
		{[]string{"machine", "stop", "o"}, "one\t", string(id) + "\t"},
		{[]string{"exec", ""}, "one\t", ""},
		{[]string{"ssh", "one", ""}, "", "one\t"},
		{[]string{"app", "show", "l"}, "ledger\t2 machines", ""},
		{[]string{"machine", "list", "-a", ""}, "ledger\t", ""},
		{[]string{"machine", "move", "one", "--to", "h"}, "h2\tsouth, ok", ""},
		{[]string{"host", "show", ""}, "h1\tnorth, ok", ""},
		{[]string{"app", "create", ""}, "", "ledger"},
		{[]string{"deploy", "sh"}, "show\t", ""},
		{[]string{"token", "rotate-root", "a"}, "acme", "tok_"},
		{[]string{"scale", "count", "2", "-g", ""}, "web\n", ""},
		{[]string{"deploy", "--strategy", ""}, "rolling\nimmediate\n", ""},
		{[]string{"machine", "create", "--restart", "o"}, "on-failure\n", ""},
		{[]string{"machine", "wait", "one", "--state", "se"}, "settled\n", ""},
		{[]string{"secrets", "unset", "-a", "ledger", ""}, "TOKEN\tof ledger", ""},
		{[]string{"machines", "stop", "o"}, "one\t", ""},
		{[]string{"token", "show", ""}, "tok_0000000000000012\tci of acme", ""},
	} {
		got := r.run(t.Context(), append([]string{"__complete"}, c.args...)...)
		if got.code != 0 || !strings.Contains(got.stdout, c.want) || c.not != "" && strings.Contains(got.stdout, c.not) {
			t.Errorf("%q: %+v", c.args, got)
		}
	}
	r.vars[envAPI] = "http://127.0.0.1:1"
	if got := r.run(t.Context(), "__complete", "machine", "stop", ""); got.code != 0 || strings.Contains(got.stdout, "one") {
		t.Errorf("without a fleet: %+v", got)
	}
	if got := r.run(t.Context(), "completion", "bash"); got.code != 0 || !strings.Contains(got.stdout, "__complete") {
		t.Errorf("no script for bash: %d", got.code)
	}
}

func TestErrorsAreJSONWithJSON(t *testing.T) {
	_, r, _ := prepared(t)
	for args, code := range map[string]string{"machine show nope": "not_found", "machine list --nope": "invalid", "machine logs one --tail 0": "invalid", "nope": "invalid"} {
		got := r.run(t.Context(), append(strings.Fields(args), "--json")...)
		var e struct{ Error, Message, Code, Hint string }
		if err := json.Unmarshal([]byte(got.stderr), &e); err != nil || e.Code != code || e.Error == "" || e.Message != e.Error || e.Hint == "" || got.stdout != "" || got.code == 0 {
			t.Errorf("%s: %+v, %v", args, got, err)
		}
	}
}

// TestFlagsThatCannotBeRead: the words are those of the command line.
func TestFlagsThatCannotBeRead(t *testing.T) {
	_, r, _ := prepared(t)
	for args, want := range map[string]string{
		"machine create debian -a ledger --cpus nine":   `--cpus is "nine"; expected a whole number`,
		"machine create debian -a ledger --cpus 0":      "--cpus is 0; expected 1 or more",
		"logs -a ledger --since yesterday":              `--since is "yesterday"; expected a span such as 90s or 12h`,
		"logs -a ledger --follow=perhaps":               `--follow is "perhaps"; expected true or false`,
		"machine create debian -a ledger --memmory 512": "did you mean --memory?",
		"volume create data -a ledger --xyzzy":          "'drover volume create --help'",
	} {
		if got := r.run(t.Context(), strings.Fields(args)...); got.code != 2 || !strings.Contains(got.stderr, want) || strings.Contains(got.stderr, "strconv") {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

func TestTheAppIsThatOfTheEnvironmentOrTheFile(t *testing.T) {
	_, r, _ := prepared(t)
	inDirectory(t, "app = \"ledger\"\n")
	if got := r.run(t.Context(), "machine", "create", "debian", "-d"); got.code != 0 {
		t.Errorf("by the file: %+v", got)
	}
	inDirectory(t, "app = 'nope'\n")
	r.vars[envApp] = "ledger"
	if got := r.run(t.Context(), "volume", "create", "data", "--size", "1GiB"); got.code != 0 {
		t.Errorf("by the environment: %+v", got)
	}
	for _, args := range [][]string{{"machine", "place"}, {"secrets", "set", "A=1"}, {"secrets", "list"}, {"secrets", "unset", "A"}} {
		if got := r.run(t.Context(), args...); got.code != 0 {
			t.Errorf("%q by the environment: %+v", args, got)
		}
	}
	delete(r.vars, envApp)
	inDirectory(t, "app = \n")
	if got := r.run(t.Context(), "deploy", "list"); got.code != 2 || !strings.Contains(got.stderr, "cannot tell the app by fly.toml") {
		t.Errorf("by a broken file: %+v", got)
	}
}
