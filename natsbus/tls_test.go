package natsbus

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"drover"
)

// authority makes certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{t, cert, key}
}

func (a authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a authority) issue(name string) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestOnlyTheFleetsOwnCertificatesGetIn(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	cfg := ServerConfig{Name: "c1", Host: "127.0.0.1", StoreDir: t.TempDir(), Log: quiet(),
		TLS: &tls.Config{Certificates: []tls.Certificate{ours.issue("c1")}, ClientCAs: ours.pool()}}
	_, err := StartServer(cfg)
	wantCode(t, err, drover.Invalid) // it would let anybody in
	cfg.TLS.ClientAuth = tls.RequireAndVerifyClientCert
	srv, err := StartServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Shutdown)

	dial := func(cfg Config) *Conn {
		cfg.Name, cfg.Log = "test", quiet()
		conn, err := Connect(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		return conn
	}
	urls := []string{srv.ClientURL()}
	stranger := dial(Config{URLs: urls, TLS: &tls.Config{RootCAs: ours.pool(), Certificates: []tls.Certificate{theirs.issue("h1")}}})
	nobody := dial(Config{URLs: urls, TLS: &tls.Config{RootCAs: ours.pool()}})
	misled := dial(Config{URLs: urls, TLS: &tls.Config{RootCAs: theirs.pool(), Certificates: []tls.Certificate{ours.issue("h1")}}})
	member := dial(Config{URLs: urls, TLS: &tls.Config{RootCAs: ours.pool(), Certificates: []tls.Certificate{ours.issue("h1")}}})
	eventually(t, "a member gets in", member.Up)
	mustCreate(t, open[string](t, dial(Config{InProcess: srv}), "things"), "b", "1")
	// Users are not let onto the bus at all, whatever token they show: it knows certificates of hosts only.
	for name, option := range map[string]nats.Option{"a token": nats.Token("drvm_AgIyZHJvdmVyLzEga2V5"), "a password": nats.UserInfo("acme", "drvm_AgIyZHJvdmVyLzEga2V5")} {
		for _, config := range []*tls.Config{nil, {RootCAs: ours.pool()}} {
			options := []nats.Option{option, nats.Timeout(5 * time.Second)}
			if config != nil {
				options = append(options, nats.Secure(config))
			}
			if nc, err := nats.Connect(srv.ClientURL(), options...); err == nil {
				nc.Close()
				t.Errorf("somebody with %s and no certificate got in", name)
			}
		}
	}
	for name, conn := range map[string]*Conn{"a stranger": stranger, "nobody": nobody, "somebody who trusts another server": misled} {
		if conn.Up() {
			t.Errorf("%s got in", name)
		}
	}
}
