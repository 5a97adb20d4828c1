package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover"
	"drover/api/apitest"
)

// writeAPIFile writes a dev fleet's file, in a new directory or below one, and returns the file's directory.
func writeAPIFile(t *testing.T, content string, below ...string) string {
	t.Helper()
	dir := filepath.Join(append([]string{t.TempDir()}, below...)...)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "api.json"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestWhereTheFleetIsFound: flags win over the environment, and that over the dev fleet's file.
func TestWhereTheFleetIsFound(t *testing.T) {
	url := fleetOf(t, apitest.New())[envAPI]
	good := writeAPIFile(t, `{"url":"`+url+`","token":"`+apitest.OperatorToken+`"}`)
	stale := writeAPIFile(t, `{"url":"http://127.0.0.1:1","token":"x"}`)
	home := filepath.Join(writeAPIFile(t, `{"url":"`+url+`","token":"`+apitest.OperatorToken+`"}`, ".drover", "dev"), "..", "..")
	for name, c := range map[string]struct {
		vars map[string]string
		args []string
	}{
		"flags":               {map[string]string{envAPI: "http://127.0.0.1:1", envToken: "x"}, []string{"--api", url, "--token", apitest.OperatorToken}},
		"flags with /v1":      {nil, []string{"--api", url + "/v1/", "--token", apitest.OperatorToken}},
		"environment":         {map[string]string{envAPI: url, envToken: apitest.OperatorToken, envDevDir: stale}, nil},
		"--dir":               {map[string]string{envDevDir: stale}, []string{"--dir", good}},
		"DROVER_DEV_DIR":      {map[string]string{envDevDir: good}, nil},
		"home":                {map[string]string{"HOME": home}, nil},
		"token from the file": {map[string]string{envAPI: url, envDevDir: good}, nil},
	} {
		if got := (runner{vars: c.vars}).run(t.Context(), append(c.args, "host", "list")...); got.code != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestTokenOfTheFileStaysWithItsURL: a dev fleet's token is never sent to another server.
func TestTokenOfTheFileStaysWithItsURL(t *testing.T) {
	url := fleetOf(t, apitest.New())[envAPI]
	dir := writeAPIFile(t, `{"url":"http://127.0.0.1:1","token":"`+apitest.OperatorToken+`"}`)
	got := runner{vars: map[string]string{envAPI: url, envDevDir: dir}}.run(t.Context(), "host", "list")
	if got.code != 8 || !strings.Contains(got.stderr, "no Authorization header") {
		t.Errorf("%+v", got)
	}
}

func TestNoFleetIsSaid(t *testing.T) {
	r := runner{vars: map[string]string{"HOME": t.TempDir()}}
	if got := r.run(t.Context(), "app", "list"); got.code != 5 || !strings.Contains(got.stderr, "no fleet to talk to") || !strings.Contains(got.stderr, "'drover dev up'") {
		t.Errorf("%+v", got)
	}
	for _, content := range []string{"{", `{}`, `[]`} {
		r.vars[envDevDir] = writeAPIFile(t, content)
		if got := r.run(t.Context(), "app", "list"); got.code != 2 || !strings.Contains(got.stderr, "api.json") {
			t.Errorf("%s: %+v", content, got)
		}
	}
	if got := r.run(t.Context(), "--api", "http://127.0.0.1:1", "--token", "x", "app", "list"); got.code != 7 || !strings.Contains(got.stderr, "cannot reach the API at http://127.0.0.1:1") {
		t.Errorf("%+v", got)
	}
}

func TestEveryCodeHasAnExitCode(t *testing.T) {
	want := map[drover.Code]int{
		drover.Invalid: 2, drover.NotFound: 3, drover.Exists: 4, drover.Conflict: 4, drover.Precondition: 5, drover.Exhausted: 6,
		drover.Unavailable: 7, drover.Denied: 8, drover.Canceled: 130, drover.Internal: 1,
	}
	for _, code := range drover.Codes {
		if _, ok := want[code]; !ok {
			t.Errorf("the code %q is new: give it an exit code in exitCode, in the root command's help and in this table", code)
		}
		if got := exitCode(code); got != want[code] {
			t.Errorf("%s: %d, want %d", code, got, want[code])
		}
	}
	if exitCode("") != 0 {
		t.Error("no error is not 0")
	}
}
