package fleetca

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"drover"
	"drover/internal/durable"
)

// The two certificates of a host, by the first word of their file names.
const (
	serverPair = "server"
	clientPair = "client"
)

// IssueHost makes the host's directory complete: the CA's certificate, and a server's and a client's certificate with their keys, each
// valid for a year. What is there already and good (the same host, addresses and names, this CA, more than a third of its life left) is
// kept. The host's ID, localhost and the loopback addresses need not be given. Calls for one directory must not overlap.
func IssueHost(ca *CA, dir string, host drover.HostID, addresses []netip.Addr, names []string) error {
	return issueAt(ca, dir, host, addresses, names, time.Now())
}

func issueAt(ca *CA, dir string, host drover.HostID, addresses []netip.Addr, names []string, now time.Time) error {
	if !drover.ValidName(string(host)) {
		return drover.Errorf(drover.Invalid, "cannot issue certificates: %q is not a host ID", host)
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return drover.Errorf(drover.Internal, "cannot make the TLS directory of host %q: %w", host, err)
	}
	if err := durable.RemoveTemp(dir); err != nil {
		return drover.Errorf(drover.Internal, "cannot clean the TLS directory of host %q: %w", host, err)
	}
	have, err := os.ReadFile(filepath.Join(dir, caCertFile))
	if err != nil || !bytes.Equal(have, ca.certPEM) {
		if err := durable.WriteFile(filepath.Join(dir, caCertFile), ca.certPEM, 0o644); err != nil {
			return drover.Errorf(drover.Internal, "cannot write the CA's certificate for host %q: %w", host, err)
		}
	}
	for _, pair := range []string{serverPair, clientPair} {
		template := hostTemplate(pair, host, addresses, names, now)
		if ca.holds(dir, pair, template, now) {
			continue
		}
		if err := ca.issue(dir, pair, template); err != nil {
			return err
		}
	}
	return nil
}

func hostTemplate(pair string, host drover.HostID, addresses []netip.Addr, names []string, now time.Time) *x509.Certificate {
	t := &x509.Certificate{
		Subject:               pkix.Name{CommonName: string(host)},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(hostLife),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if pair == clientPair {
		return t
	}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	t.DNSNames = append([]string{string(host), "localhost"}, names...)
	slices.Sort(t.DNSNames)
	t.DNSNames = slices.Compact(t.DNSNames)
	all := append([]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, addresses...)
	slices.SortFunc(all, netip.Addr.Compare)
	for _, a := range slices.Compact(all) {
		t.IPAddresses = append(t.IPAddresses, a.Unmap().AsSlice())
	}
	return t
}

// holds reports whether the directory's pair is as the template wants it and lives long enough.
func (ca *CA) holds(dir, pair string, want *x509.Certificate, now time.Time) bool {
	loaded, err := loadPair(dir, pair)
	if err != nil {
		return false // missing, half-written or mixed up: it is issued again
	}
	have := loaded.Leaf
	if have.CheckSignatureFrom(ca.cert) != nil || have.Subject.CommonName != want.Subject.CommonName {
		return false
	}
	if have.NotBefore.After(now) || have.NotAfter.Sub(now) < hostLife/3 {
		return false
	}
	sameIPs := slices.EqualFunc(have.IPAddresses, want.IPAddresses, func(a, b net.IP) bool {
		x, _ := netip.AddrFromSlice(a)
		y, _ := netip.AddrFromSlice(b)
		return x.Unmap() == y.Unmap()
	})
	return sameIPs && slices.Equal(have.DNSNames, want.DNSNames)
}

// issue writes a fresh key and then its certificate. A crash between the two leaves a pair that does not match, which holds notices.
func (ca *CA) issue(dir, pair string, template *x509.Certificate) error {
	key, err := writeNewKey(filepath.Join(dir, pair+"-key.pem"))
	if err != nil {
		return err
	}
	return ca.certify(dir, pair, template, key)
}

func loadPair(dir, pair string) (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, pair+"-cert.pem"), filepath.Join(dir, pair+"-key.pem"))
	if err != nil {
		return nil, drover.Errorf(drover.Precondition, "cannot load the %s certificate in %q: %w", pair, dir, err)
	}
	return &cert, nil
}
