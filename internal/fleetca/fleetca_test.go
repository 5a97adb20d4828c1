package fleetca

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"drover"
)

// newHost issues certificates for a host of the CA in a fresh directory.
func newHost(t *testing.T, ca *CA, id drover.HostID) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tls")
	if err := IssueHost(ca, dir, id, []netip.Addr{netip.MustParseAddr("10.98.0.1")}, nil); err != nil {
		t.Fatal(err)
	}
	return dir
}

func newCA(t *testing.T) *CA {
	t.Helper()
	ca, err := Ensure(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// handshake connects the two configurations over loopback. It returns the host that the server saw, and both sides' errors.
func handshake(t *testing.T, server, client *tls.Config) (peer drover.HostID, serverErr, clientErr error) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		tc := conn.(*tls.Conn)
		if err := tc.HandshakeContext(t.Context()); err != nil {
			done <- err
			return
		}
		peer, err = PeerHost(tc.ConnectionState())
		_, writeErr := tc.Write([]byte("x"))
		done <- errors.Join(err, writeErr)
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := tls.Client(raw, client)
	if clientErr = conn.HandshakeContext(t.Context()); clientErr == nil {
		// In TLS 1.3 the server judges the client's certificate after the client is done: only a read shows the verdict.
		_, clientErr = io.ReadFull(conn, make([]byte, 1))
	}
	raw.Close()
	return peer, <-done, clientErr
}

func mustServer(t *testing.T, dir string) *tls.Config {
	t.Helper()
	c, err := ServerConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustClient(t *testing.T, dir string, server drover.HostID) *tls.Config {
	t.Helper()
	c, err := ClientConfig(dir, server)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestHostsKnowEachOther(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	peer, serverErr, clientErr := handshake(t, mustServer(t, h1), mustClient(t, h2, "h1"))
	if serverErr != nil || clientErr != nil || peer != "h2" {
		t.Fatalf("peer %q, server: %v, client: %v", peer, serverErr, clientErr)
	}
}

func TestClientRefusesAnotherHost(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	if _, _, err := handshake(t, mustServer(t, h1), mustClient(t, h2, "h3")); err == nil {
		t.Fatal("the client meant h3 and talked to h1")
	}
	// A certificate may carry another host's name as an additional name; only the CommonName says whose it is.
	sly := filepath.Join(t.TempDir(), "tls")
	if err := IssueHost(ca, sly, "sly", nil, []string{"h3"}); err != nil {
		t.Fatal(err)
	}
	_, _, err := handshake(t, mustServer(t, sly), mustClient(t, h2, "h3"))
	if !drover.Is(err, drover.Denied) {
		t.Fatalf("the client meant h3 and met sly: %v", err)
	}
}

func TestClientOfAnAddressTakesTheHostThatHasIt(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	for address, want := range map[string]bool{"10.98.0.1": true, "127.0.0.1": true, "10.98.0.2": false} {
		client := mustClient(t, h2, "")
		client.ServerName = address
		if _, _, err := handshake(t, mustServer(t, h1), client); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestServerRefusesStrangers(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	h1, stranger := newHost(t, ca, "h1"), newHost(t, other, "h1")
	trusting := mustClient(t, stranger, "h1")
	trusting.RootCAs = mustClient(t, h1, "h1").RootCAs // it believes the server, but its own certificate is of another CA
	if _, serverErr, clientErr := handshake(t, mustServer(t, h1), trusting); serverErr == nil || clientErr == nil {
		t.Fatalf("a certificate of another CA was taken: server %v, client %v", serverErr, clientErr)
	}
	naked := trusting.Clone()
	naked.GetClientCertificate = nil
	if _, serverErr, clientErr := handshake(t, mustServer(t, h1), naked); serverErr == nil || clientErr == nil {
		t.Fatalf("a client without a certificate was taken: server %v, client %v", serverErr, clientErr)
	}
	old := mustClient(t, newHost(t, ca, "h2"), "h1")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, serverErr, _ := handshake(t, mustServer(t, h1), old); serverErr == nil {
		t.Fatal("TLS 1.2 was spoken")
	}
	if _, serverErr, _ := handshake(t, mustServer(t, h1), &tls.Config{
		RootCAs: trusting.RootCAs, ServerName: "h1",
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return loadPair(h1, serverPair) },
	}); serverErr == nil {
		t.Fatal("a server's certificate was taken from a client")
	}
}

// files reads every file of a directory.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(data)
	}
	return out
}

func TestEnsureAndIssueAreRepeatable(t *testing.T) {
	caDir, dir := t.TempDir(), filepath.Join(t.TempDir(), "tls")
	now := time.Now()
	addresses := []netip.Addr{netip.MustParseAddr("10.98.0.1"), netip.MustParseAddr("fd98::1")}
	issue := func(at time.Time, ips ...netip.Addr) map[string]string {
		t.Helper()
		ca, err := ensureAt(caDir, at)
		if err != nil {
			t.Fatal(err)
		}
		if err := issueAt(ca, dir, "h1", ips, nil, at); err != nil {
			t.Fatal(err)
		}
		return files(t, dir)
	}
	first := issue(now, addresses...)
	if len(first) != 5 {
		t.Fatalf("files: %v", first)
	}
	for name, content := range issue(now.Add(hostLife/2), addresses[1], addresses[0]) {
		if first[name] != content {
			t.Errorf("%s was made again for nothing", name)
		}
	}
	late := issue(now.Add(hostLife*3/4), addresses...)
	for _, name := range []string{"server-cert.pem", "server-key.pem", "client-cert.pem", "client-key.pem"} {
		if late[name] == first[name] {
			t.Errorf("%s was not renewed with a quarter of its life left", name)
		}
	}
	moved := issue(now.Add(hostLife*3/4), netip.MustParseAddr("10.98.0.9"))
	if moved["server-cert.pem"] == late["server-cert.pem"] || moved["client-cert.pem"] != late["client-cert.pem"] {
		t.Error("a new address must renew the server's certificate, and only that")
	}
}

func TestKeysAreForTheirOwnerOnly(t *testing.T) {
	caDir := t.TempDir()
	ca, err := Ensure(caDir)
	if err != nil {
		t.Fatal(err)
	}
	dir := newHost(t, ca, "h1")
	for _, path := range []string{filepath.Join(caDir, "ca-key.pem"), filepath.Join(dir, "server-key.pem"), filepath.Join(dir, "client-key.pem")} {
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
}

func TestIssueRepairsWhatACrashLeft(t *testing.T) {
	ca := newCA(t)
	for _, broken := range []string{"ca-cert.pem", "server-cert.pem", "server-key.pem", "client-cert.pem", "client-key.pem"} {
		dir := newHost(t, ca, "h1")
		if err := os.Remove(filepath.Join(dir, broken)); err != nil {
			t.Fatal(err)
		}
		if _, err := ServerConfig(dir); broken[0] != 'c' && !drover.Is(err, drover.Precondition) {
			t.Errorf("without %s: %v", broken, err)
		}
		if err := IssueHost(ca, dir, "h1", []netip.Addr{netip.MustParseAddr("10.98.0.1")}, nil); err != nil {
			t.Fatal(err)
		}
		if _, serverErr, clientErr := handshake(t, mustServer(t, dir), mustClient(t, dir, "h1")); serverErr != nil || clientErr != nil {
			t.Errorf("after %s was repaired: server %v, client %v", broken, serverErr, clientErr)
		}
	}
}

func TestEnsureTellsALostKey(t *testing.T) {
	dir := t.TempDir()
	if _, err := Ensure(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "ca-key.pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(dir); !drover.Is(err, drover.Precondition) {
		t.Fatalf("a CA without its key: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "ca-cert.pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(dir); err != nil {
		t.Fatal(err)
	}
}

func TestIssueRefusesABadHostID(t *testing.T) {
	if err := IssueHost(newCA(t), t.TempDir(), "../h1", nil, nil); !drover.Is(err, drover.Invalid) {
		t.Fatal(err)
	}
}
