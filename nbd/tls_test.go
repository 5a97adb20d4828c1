package nbd

import (
	"bytes"
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover"
)

// secured serves "disk" over TCP with mutual TLS.
func secured(t *testing.T, content []byte) (address string, ca *authority, m *memory, s *shelf) {
	t.Helper()
	m = newMemory(t, len(content))
	copy(m.content, content)
	s = newShelf()
	s.add("disk", &quick{memory: m}, len(content), false)
	ca = newAuthority(t, "fleet")
	return startServer(t, "tcp", s, func(cfg *ServerConfig) { cfg.TLS = ca.server() }), ca, m, s
}

func (s *shelf) wantNoOpens(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.peers) != 0 {
		t.Errorf("the Opener was asked %d times", len(s.peers))
	}
}

func TestLibnbdOverMutualTLS(t *testing.T) {
	nbdcopy, nbdinfo := tool(t, "nbdcopy", "libnbd-bin"), tool(t, "nbdinfo", "libnbd-bin")
	content := sample(sampleSize)
	address, ca, m, s := secured(t, content)
	secure := "nbds://" + address + "/disk?tls-certificates=" + ca.directory(ca, "h2")
	if out := run(t, nbdinfo, secure); !strings.Contains(out, "with TLS") {
		t.Errorf("nbdinfo: %s", out)
	}
	file := filepath.Join(t.TempDir(), "copy")
	run(t, nbdcopy, secure, file)
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("the copy differs (%v)", err)
	}
	fill(content, 7)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, nbdcopy, file, secure)
	if !bytes.Equal(m.bytes(), content) {
		t.Fatal("the export differs from what was copied to it")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.peers {
		if p.TLS == nil || p.Remote == "" || len(p.TLS.VerifiedChains) == 0 || p.TLS.PeerCertificates[0].Subject.CommonName != "h2" {
			t.Fatalf("the Opener saw the peer %+v", p)
		}
	}
}

func TestQemuImgOverMutualTLS(t *testing.T) {
	qemuImg := tool(t, "qemu-img", "qemu-utils")
	content := sample(sampleSize)
	address, ca, _, _ := secured(t, content)
	host, port, _ := strings.Cut(address, ":")
	file := filepath.Join(t.TempDir(), "copy")
	run(t, qemuImg, "convert", "-O", "raw", "--object", "tls-creds-x509,id=tls0,endpoint=client,dir="+ca.directory(ca, "h2"), "--image-opts",
		"driver=nbd,host="+host+",port="+port+",export=disk,tls-creds=tls0", file)
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("the copy differs (%v)", err)
	}
}

func TestLibnbdIsRefusedWithoutTheRightCertificate(t *testing.T) {
	nbdinfo := tool(t, "nbdinfo", "libnbd-bin")
	address, ca, _, s := secured(t, sample(sampleSize))
	stranger := newAuthority(t, "stranger")
	for name, target := range map[string]string{
		"no TLS":                        "nbd://" + address + "/disk",
		"no certificate":                "nbds://" + address + "/disk?tls-certificates=" + ca.directory(ca, ""),
		"another authority's":           "nbds://" + address + "/disk?tls-certificates=" + stranger.directory(ca, "h2"),
		"the server's is not trusted":   "nbds://" + address + "/disk?tls-certificates=" + stranger.directory(stranger, "h2"),
		"the server's name is another ": "nbds://localhost:" + address[strings.LastIndex(address, ":")+1:] + "/disk?tls-certificates=" + ca.directory(ca, "h2"),
	} {
		if out, err := try(nbdinfo, target); err == nil {
			t.Errorf("%s: accepted: %s", name, out)
		}
	}
	s.wantNoOpens(t)
}

func TestClientIsRefusedWithoutTheRightCertificate(t *testing.T) {
	address, ca, _, s := secured(t, sample(sampleSize))
	stranger := newAuthority(t, "stranger")
	noCert, otherCert := ca.client("h2"), ca.client("h2")
	noCert.Certificates = nil
	otherCert.Certificates = []tls.Certificate{stranger.issue("h2")}
	wrongName := ca.client("h2")
	wrongName.ServerName = "127.0.0.2"
	for name, cfg := range map[string]*tls.Config{
		"no TLS": nil, "no certificate": noCert, "another authority's": otherCert, "the server is not trusted": stranger.client("h2"), "wrong name": wrongName,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Dial(context.Background(), ClientConfig{Network: "tcp", Address: address, Export: "disk", TLS: cfg})
			wantCode(t, err, drover.Denied)
		})
	}
	s.wantNoOpens(t)
}

func TestClientInsistsOnTLS(t *testing.T) {
	socket, _, _ := exported(t, sample(sampleSize))
	cfg := newAuthority(t, "fleet").client("h2")
	cfg.ServerName = "127.0.0.1"
	_, err := Dial(context.Background(), ClientConfig{Network: "unix", Address: socket, Export: "disk", TLS: cfg})
	wantCode(t, err, drover.Denied)
}

func TestPingTellsWhetherTheServerIsThere(t *testing.T) {
	address, ca, _, s := secured(t, sample(sampleSize))
	for range 3 {
		if err := Ping(t.Context(), ClientConfig{Network: "tcp", Address: address, TLS: ca.client("h2")}); err != nil {
			t.Error(err)
		}
	}
	wantCode(t, Ping(t.Context(), ClientConfig{Network: "tcp", Address: address, TLS: newAuthority(t, "stranger").client("h2")}), drover.Denied)
	wantCode(t, Ping(t.Context(), ClientConfig{Network: "tcp", Address: "127.0.0.1:1", TLS: ca.client("h2")}), drover.Unavailable)
	s.wantNoOpens(t)
}
