package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"drover"
	"drover/api"
	"drover/api/apitest"
)

// TestAClientCanBeGenerated makes a client of the document that is served, with a generator that others wrote, and uses it.
func TestAClientCanBeGenerated(t *testing.T) {
	if testing.Short() {
		t.Skip("generates and builds a client of 40,000 lines")
	}
	generator, err := filepath.Abs("../build/tools/oapi-codegen")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(generator); err != nil {
		t.Skipf("there is no generator (%v); script/bootstrap builds it", err)
	}
	backend := apitest.New()
	backend.Exec = func(drover.ExecRequest) (drover.ExecResult, error) {
		return drover.ExecResult{Stdout: []byte("hello\n")}, nil
	}
	s := newServer(t, api.Config{Backend: backend})
	server := httptest.NewServer(s.handler)
	defer server.Close()

	dir := t.TempDir()
	write(t, filepath.Join(dir, "openapi.json"), s.want(200, "GET", "/v1/openapi.json", "").Body.Bytes())
	for from, to := range map[string]string{"../test/clients/go.mod": "go.mod", "../test/clients/go.sum": "go.sum", "testdata/generated/main.go": "main.go"} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, to), data)
	}
	if err := os.Mkdir(filepath.Join(dir, "client"), 0o755); err != nil {
		t.Fatal(err)
	}
	in(t, dir, generator, "-generate", "types,client", "-package", "client", "-o", "client/client.gen.go", "openapi.json")
	out := in(t, dir, "go", "run", "-mod=mod", ".", server.URL, apitest.AcmeToken)

	var got map[string]any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	apps, machines, volumes := backend.Count()
	if apps != 1 || machines != 1 || volumes != 1 || got["Machines"] != 1.0 {
		t.Errorf("%d apps, %d machines, %d volumes; the client saw %v", apps, machines, volumes, got)
	}
	for field, want := range map[string]string{"State": "started", "Stdout": "hello\n", "Unknown": "kept", "Refusal": `image "missing" does not exist`} {
		if got[field] != want {
			t.Errorf("%s is %q, want %q", field, got[field], want)
		}
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// in runs a program in a directory and returns what it printed.
func in(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), args[0], args[1:]...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, stderr.String())
	}
	return out
}
