package test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFlyAdmin drives the fleet with a client that others wrote, which is pointed here by `drover env`.
func TestFlyAdmin(t *testing.T) {
	modules, err := filepath.Abs("../build/clients/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "fly-admin")); err != nil {
		t.Fatalf("fly-admin is not installed (%v); script/bootstrap does it", err)
	}
	const app = "fly-admin"
	t.Cleanup(func() {
		if fleet.cli.Run(context.Background(), nil, "app", "show", app) == nil { // it ended early
			removeApp(t, app)
		}
	})
	script, err := filepath.Abs("clients/fly-admin.js")
	if err != nil {
		t.Fatal(err)
	}
	cmd := fleet.cli.Command(t.Context(), "env", "--", "node", script, app, "oci:"+fleet.shellImage)
	cmd.Env = append(cmd.Env, "NODE_PATH="+modules)
	out, err := cmd.Output()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if done := strings.Count(string(out), "done: "); done < 9 {
		t.Errorf("only %d steps were taken", done)
	}
}
