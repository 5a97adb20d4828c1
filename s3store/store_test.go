package s3store

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/internal/fleetca"
	"drover/internal/testkit/s3server"
	"drover/internal/testkit/storetest"
)

// startServer starts an S3 server, with TLS if a directory with certificates is given.
func startServer(t *testing.T, tlsDir string) *s3server.Server {
	t.Helper()
	if path, err := s3server.Find(); err != nil {
		t.Skipf("there is no S3 server at %s: script/bootstrap installs it", path)
	}
	cert, key := "", ""
	if tlsDir != "" {
		cert, key = filepath.Join(tlsDir, "server-cert.pem"), filepath.Join(tlsDir, "server-key.pem")
	}
	s, err := s3server.New(t.TempDir(), cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func config(s *s3server.Server) Config {
	return Config{Endpoint: s.Endpoint, Bucket: s3server.Bucket, CredentialsFile: s.CredentialsFile, PathStyle: true}
}

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	server := startServer(t, "")
	n := 0
	storetest.Run(t, 1010, func(t *testing.T) drover.ObjectStore {
		n++
		cfg := config(server)
		cfg.Prefix = fmt.Sprintf("drover/test-%d", n)
		return open(t, cfg)
	})
}

func TestServerIsKnownByItsCertificate(t *testing.T) {
	dir := t.TempDir()
	ca, err := fleetca.Ensure(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	if err := fleetca.IssueHost(ca, filepath.Join(dir, "tls"), "s3", []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil); err != nil {
		t.Fatal(err)
	}
	cfg := config(startServer(t, filepath.Join(dir, "tls")))
	if err := open(t, cfg).Put(t.Context(), "a", []byte("x")); !drover.Is(err, drover.Unavailable) {
		t.Errorf("a server that nobody vouches for: %v", err)
	}
	cfg.CAFile = filepath.Join(dir, "tls", "ca-cert.pem")
	s := open(t, cfg)
	if err := s.Put(t.Context(), "a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), "a"); err != nil || string(got) != "x" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestErrorsHaveCodesAndKeepTheSecret(t *testing.T) {
	server := startServer(t, "")
	check := func(what string, cfg Config, code drover.Code) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err := open(t, cfg).Get(ctx, "a")
		if !drover.Is(err, code) {
			t.Errorf("%s: %v, want code %s", what, err, code)
		}
		if text := fmt.Sprintf("%+v %+v", err, drover.AsError(err)); strings.Contains(text, s3server.SecretKey) || strings.Contains(text, "wrong-secret") {
			t.Errorf("%s: the secret is in %s", what, text)
		}
	}
	cfg := config(server)
	cfg.Bucket = "nowhere"
	check("no bucket", cfg, drover.Precondition)
	cfg = config(server)
	cfg.CredentialsFile = filepath.Join(t.TempDir(), "none")
	check("no credentials", cfg, drover.Denied)
	cfg = config(server)
	cfg.Endpoint = "http://127.0.0.1:1"
	check("nobody listens", cfg, drover.Unavailable)

	// A file that is replaced is read again.
	cfg = config(server)
	cfg.CredentialsFile = filepath.Join(t.TempDir(), "credentials")
	write := func(secret string) {
		if err := os.WriteFile(cfg.CredentialsFile, fmt.Appendf(nil, "[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", s3server.AccessKey, secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("wrong-secret")
	check("a wrong key", cfg, drover.Denied)
	s := open(t, cfg)
	if err := s.Put(t.Context(), "b", []byte("x")); !drover.Is(err, drover.Denied) {
		t.Fatal(err)
	}
	write(s3server.SecretKey)
	if err := s.Put(t.Context(), "b", []byte("x")); err != nil {
		t.Fatal(err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{Endpoint: "https://s3.example.com", Bucket: "b", CredentialsFile: "/c"}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func(*Config){
		"no endpoint":          func(c *Config) { c.Endpoint = "" },
		"no scheme":            func(c *Config) { c.Endpoint = "s3.example.com" },
		"a path":               func(c *Config) { c.Endpoint = "https://s3.example.com/bucket" },
		"a secret in the URL":  func(c *Config) { c.Endpoint = "https://a:b@s3.example.com" },
		"no bucket":            func(c *Config) { c.Bucket = "" },
		"no credentials":       func(c *Config) { c.CredentialsFile = "" },
		"a prefix with spaces": func(c *Config) { c.Prefix = "a b" },
		"no CA file":           func(c *Config) { c.CAFile = "/nowhere/ca.pem" },
	} {
		c := good
		spoil(&c)
		if _, err := New(c); !drover.Is(err, drover.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
