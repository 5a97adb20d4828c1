package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/internal/hostconf"
)

func TestOperatorTokenIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "operator.token")
	first, err := operatorToken(path)
	if err != nil {
		t.Fatal(err)
	}
	second, err := operatorToken(path)
	if err != nil || second != first || len(first) < 32 {
		t.Errorf("%q, then %q, %v", first, second, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func TestServeRefusesABadConfiguration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "host.json")
	if err := hostconf.Save(path, hostconf.Config{ID: "h1"}); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"serve", "worker", "--config", path},
		{"serve", "storage", "--config", path + ".nosuch"},
		{"serve", "control"},
		{"serve", "worker", "--config", path, "--log-format", "xml"},
	} {
		var stderr bytes.Buffer
		if code := run(t.Context(), args, nil, io.Discard, &stderr); code != exitCode(drover.Invalid) {
			t.Errorf("%v: exit code %d, %s", args, code, stderr.String())
		}
	}
}

func TestFindGuestDir(t *testing.T) {
	env := map[string]string{"DROVER_GUEST_DIR": "/from/env"}
	p := process{conf: &hostconf.Config{}, getenv: func(name string) string { return env[name] }}
	if dir, err := findGuestDir(p); err != nil || dir != "/from/env" {
		t.Errorf("%q, %v", dir, err)
	}
	p.conf.GuestDir = "/from/conf"
	if dir, err := findGuestDir(p); err != nil || dir != "/from/conf" {
		t.Errorf("%q, %v", dir, err)
	}
	p.conf.GuestDir = ""
	clear(env)
	if _, err := findGuestDir(p); !drover.Is(err, drover.Precondition) {
		t.Errorf("beside a test binary: %v", err)
	}
}

func TestAPIServerEndsWithItsContext(t *testing.T) {
	conf := &hostconf.Config{API: hostconf.API{Listen: "127.0.0.1:0"}}
	log := slog.New(slog.DiscardHandler)
	l, err := listenAPI(process{conf: conf, log: log, getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- serveAPI(ctx, log, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello")) }))
	}()
	resp, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello" {
		t.Errorf("%q, %v", body, err)
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the server does not end")
	}
}

func TestDevCommandsTellWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args string
		code drover.Code
	}{
		{"dev status", drover.NotFound},
		{"dev kill h1", drover.NotFound},
		{"dev kill", drover.Invalid},
		{"dev slow h1 --rate fast", drover.NotFound},
		{"dev up --workers -1", drover.Invalid},
		{"dev up --mode cloud", drover.Invalid},
		{"dev up --regions A,b", drover.Invalid},
		{"dev down", ""},
		{"dev explode", drover.Invalid},
	} {
		var stderr bytes.Buffer
		args := append([]string{"--dir", dir}, strings.Fields(c.args)...)
		if code := run(t.Context(), args, strings.NewReader(""), io.Discard, &stderr); code != exitCode(c.code) {
			t.Errorf("%s: exit code %d, want %d: %s", c.args, code, exitCode(c.code), stderr.String())
		}
	}
}
