package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover/api"
	"drover/api/apitest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// testNow is 90 s after everything that the backend made.
func testNow() time.Time { return time.Date(2026, 3, 1, 12, 1, 30, 0, time.UTC) }

// fleetOf serves the API of a backend and returns what the command line needs to find it.
func fleetOf(tb testing.TB, backend api.Backend) map[string]string {
	tb.Helper()
	handler, err := api.New(api.Config{Backend: backend, Version: "test", Now: testNow})
	if err != nil {
		tb.Fatal(err)
	}
	server := httptest.NewServer(handler)
	tb.Cleanup(server.Close)
	return map[string]string{envAPI: server.URL, envToken: apitest.OperatorToken, "HOME": tb.TempDir()}
}

// result is what a command line left.
type result struct {
	code           int
	stdout, stderr string
}

// runner runs command lines in an environment that does not change.
type runner struct {
	vars   map[string]string
	stdin  string
	asks   bool
	redraw bool
}

func (r runner) run(ctx context.Context, args ...string) result {
	var stdout, stderr bytes.Buffer
	code := execute(ctx, args, environment{
		stdin:    strings.NewReader(r.stdin),
		stdout:   &stdout,
		stderr:   &stderr,
		getenv:   func(name string) string { return r.vars[name] },
		now:      testNow,
		asks:     r.asks,
		redraw:   r.redraw,
		width:    100,
		interval: time.Millisecond,
	})
	return result{code: code, stdout: stdout.String(), stderr: stderr.String()}
}

// TestScripts runs the command lines of testdata/cli against a fleet that is new for each file. A line "$ drover …" is run; what follows is
// what it prints: stdout, then stderr after "! ", then the exit code after "? " when it is not 0. -update writes what is printed now.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/cli/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, file, runScript(t, string(script)))
		})
	}
}

func runScript(t *testing.T, script string) string {
	r := runner{vars: fleetOf(t, apitest.New())}
	var out strings.Builder
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, "#") {
			out.WriteString(line)
		}
		command, ok := strings.CutPrefix(strings.TrimSpace(line), "$ drover")
		if !ok {
			continue
		}
		out.WriteString(line)
		got := r.run(t.Context(), splitArgs(t, command)...)
		out.WriteString(strings.ReplaceAll(got.stdout, r.vars[envAPI], "API"))
		for line := range strings.Lines(got.stderr) {
			out.WriteString("! " + strings.ReplaceAll(strings.ReplaceAll(line, r.vars["HOME"], "HOME"), r.vars[envAPI], "API"))
		}
		if got.code != 0 {
			fmt.Fprintf(&out, "? %d\n", got.code)
		}
	}
	return out.String()
}

// splitArgs splits a script's line at spaces outside of single quotes.
func splitArgs(t *testing.T, line string) []string {
	var args []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			args = append(args, part)
			continue
		}
		args = append(args, strings.Fields(part)...)
	}
	if strings.Count(line, "'")%2 == 1 {
		t.Fatalf("unbalanced quotes: %s", line)
	}
	return args
}

// golden compares with a file, or writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update writes it anew). Got:\n%s\nwant:\n%s", file, got, want)
	}
}

func TestNoTrailingSpacesAndPlainASCII(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(data), "\n") {
			if strings.TrimRight(line, " \t") != line {
				t.Errorf("%s:%d ends in spaces", file, i+1)
			}
			for _, c := range line {
				if c > 126 {
					t.Errorf("%s:%d has %q", file, i+1, c)
				}
			}
		}
	}
}

func TestStdoutThatFails(t *testing.T) {
	vars := fleetOf(t, apitest.New())
	var stderr bytes.Buffer
	code := execute(t.Context(), []string{"host", "list"}, environment{stdin: strings.NewReader(""), stdout: brokenWriter{}, stderr: &stderr,
		getenv: func(name string) string { return vars[name] }, now: time.Now, width: 80})
	if code != 1 || !strings.Contains(stderr.String(), "cannot write to stdout") {
		t.Errorf("%d %s", code, &stderr)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestACommandThatThereIsNotIsNamed, and not a flag that it would have.
func TestACommandThatThereIsNotIsNamed(t *testing.T) {
	r := runner{vars: fleetOf(t, apitest.New())}
	for args, says := range map[string][2]string{
		"machine rum debian --app ledger": {`"drover machine" has no command "rum"`, ""},
		"status -a ledger":                {`"drover" has no command "status"`, "drover app"},
		"machine lst --region=ams":        {`"drover machine" has no command "lst"`, "drover machine list"},
		"machine --region ams":            {"unknown flag: --region", "drover machine --help"},
	} {
		if got := r.run(t.Context(), strings.Fields(args)...); got.code != 2 || !strings.Contains(got.stderr, says[0]) || !strings.Contains(got.stderr, says[1]) {
			t.Errorf("%s: %+v", args, got)
		}
	}
}
