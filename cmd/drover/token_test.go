package main

import (
	"strings"
	"testing"

	"drover/api/apitest"
	"drover/macaroons"
)

// A token is narrowed by the command line alone, and the result is less.
func TestATokenIsNarrowedWithoutAServer(t *testing.T) {
	vars := fleetOf(t, apitest.New())
	online := runner{vars: vars}
	made := online.run(t.Context(), "token", "create", "--name", "ann", "--org", "acme")
	token := strings.TrimSpace(made.stdout)
	if made.code != 0 || !macaroons.Is(token) || strings.Contains(made.stderr, token) {
		t.Fatalf("%+v", made)
	}
	offline := runner{vars: map[string]string{"HOME": t.TempDir()}, stdin: token + "\n"}
	narrowed := offline.run(t.Context(), "token", "attenuate", "--token", "-", "--app", "ledger", "--read-only", "--expiry", "1h")
	if narrowed.code != 0 {
		t.Fatalf("%+v", narrowed)
	}
	vars[envToken] = strings.TrimSpace(narrowed.stdout)
	got := online.run(t.Context(), "whoami")
	for _, want := range []string{"ann", "acme", "app = ledger", "allow = read", "expires = 2026-03-01T13:01:30Z"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("%q is not in\n%s%s", want, got.stdout, got.stderr)
		}
	}
	if got := online.run(t.Context(), "app", "create", "web"); got.code != 8 || !strings.Contains(got.stderr, "app = ledger") {
		t.Errorf("%+v", got)
	}
	if got := online.run(t.Context(), "audit", "list", "--app", "ledger"); got.code != 0 {
		t.Errorf("%+v", got)
	}
}
