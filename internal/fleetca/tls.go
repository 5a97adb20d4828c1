package fleetca

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"

	"drover"
)

// ServerConfig reads a host's TLS directory for a server: TLS 1.3, clients must show a certificate of the fleet's CA. PeerHost tells
// whose it is. Precondition when the directory is not complete.
func ServerConfig(dir string) (*tls.Config, error) {
	pool, err := loadCA(dir)
	if err != nil {
		return nil, err
	}
	if _, err := loadPair(dir, serverPair); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs:  pool,
		// Read at each handshake, so that a certificate issued again is used without a restart.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return loadPair(dir, serverPair) },
	}, nil
}

// ClientConfig reads a host's TLS directory for a client of the given host: TLS 1.3, shows the client certificate, and goes on only
// when the server's certificate is of the fleet's CA and names that host. Where any host will do that has the address that was dialled,
// server is empty, and whoever dials fills in ServerName with the address. Precondition when the directory is not complete.
func ClientConfig(dir string, server drover.HostID) (*tls.Config, error) {
	pool, err := loadCA(dir)
	if err != nil {
		return nil, err
	}
	if _, err := loadPair(dir, clientPair); err != nil {
		return nil, err
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    pool,
		ServerName: string(server),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return loadPair(dir, clientPair)
		},
	}
	if server != "" {
		config.VerifyConnection = func(state tls.ConnectionState) error { return VerifyHost(state, server) }
	}
	return config, nil
}

// ControlClientConfig is ClientConfig with the certificate of a control host, for what only they may do. Precondition on a host that has none.
func ControlClientConfig(dir string, server drover.HostID) (*tls.Config, error) {
	config, err := ClientConfig(dir, server)
	if err != nil {
		return nil, err
	}
	if _, err := ControlCertificate(dir); err != nil {
		return nil, err
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return loadPair(dir, controlPair) }
	return config, nil
}

// VerifyHost returns Denied unless the peer's certificate is the given host's. The handshake has checked before that the fleet's
// CA signed it.
func VerifyHost(state tls.ConnectionState, want drover.HostID) error {
	got, err := PeerHost(state)
	if err != nil {
		return err
	}
	if got != want {
		return drover.Errorf(drover.Denied, "connected to host %q, but meant to reach host %q", got, want)
	}
	return nil
}

// PeerHost returns the host whose certificate the peer showed; Denied when it showed none.
func PeerHost(state tls.ConnectionState) (drover.HostID, error) {
	if len(state.PeerCertificates) == 0 {
		return "", drover.Errorf(drover.Denied, "the peer showed no certificate")
	}
	name := state.PeerCertificates[0].Subject.CommonName
	if !drover.ValidName(name) {
		return "", drover.Errorf(drover.Denied, "the peer's certificate names %q, which is not a host ID", name)
	}
	return drover.HostID(name), nil
}

func loadCA(dir string) (*x509.CertPool, error) {
	path := filepath.Join(dir, caCertFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, drover.Errorf(drover.Precondition, "cannot load the fleet's CA certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, drover.Errorf(drover.Precondition, "cannot load the fleet's CA certificate: no certificate in %q", path)
	}
	return pool, nil
}
