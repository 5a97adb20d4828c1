package fleetca

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"drover"
	"drover/internal/durable"
)

// controlPair is the first word of the file names of a control host's own certificate.
const controlPair = "control"

// controlUnit, in a certificate's subject, says that the CA made it for a control host. Nothing else is proof of that.
const controlUnit = "drover control"

// IssueControl gives a control host the certificate that says that it is one (control-cert.pem, control-key.pem, beside those of
// IssueHost). Secrets are sealed to it that must be readable for good, so its key stays when it is issued again. Calls for one directory must
// not overlap.
func IssueControl(ca *CA, dir string, host drover.HostID) error {
	return issueControlAt(ca, dir, host, time.Now())
}

func issueControlAt(ca *CA, dir string, host drover.HostID, now time.Time) error {
	if !drover.ValidName(string(host)) {
		return drover.Errorf(drover.Invalid, "cannot issue certificates: %q is not a host ID", host)
	}
	template := hostTemplate(clientPair, host, nil, nil, now)
	template.Subject.OrganizationalUnit = []string{controlUnit}
	if ca.holds(dir, controlPair, template, now) {
		return nil
	}
	path := filepath.Join(dir, controlPair+"-key.pem")
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = writeNewKey(path)
	}
	if err != nil {
		return err
	}
	return ca.certify(dir, controlPair, template, key)
}

// certify signs a certificate for the key and writes it.
func (ca *CA) certify(dir, pair string, template *x509.Certificate, key *ecdsa.PrivateKey) (err error) {
	host := template.Subject.CommonName
	if template.SerialNumber, err = newSerial(); err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot sign the %s certificate of host %q: %w", pair, host, err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := durable.WriteFile(filepath.Join(dir, pair+"-cert.pem"), block, 0o644); err != nil {
		return drover.Errorf(drover.Internal, "cannot write the %s certificate of host %q: %w", pair, host, err)
	}
	return nil
}

// HostCertificate returns the certificate that the directory's host shows when it connects, as DER.
func HostCertificate(dir string) ([]byte, error) { return certificate(dir, clientPair) }

// ControlCertificate returns the certificate that IssueControl made, as DER. Precondition on a host that has none.
func ControlCertificate(dir string) ([]byte, error) {
	der, err := certificate(dir, controlPair)
	if err != nil {
		return nil, drover.AsError(err).WithHint("whoever has the fleet's CA issues it to control hosts: control-cert.pem and control-key.pem")
	}
	return der, nil
}

func certificate(dir, pair string) ([]byte, error) {
	loaded, err := loadPair(dir, pair)
	if err != nil {
		return nil, err
	}
	return loaded.Certificate[0], nil
}

// HostValidity says until when the directory's host certificate is valid, and who signed it. Denied when it is not of the fleet's CA, or not
// valid now.
func HostValidity(dir string) (until time.Time, issuer string, err error) {
	der, err := HostCertificate(dir)
	if err != nil {
		return time.Time{}, "", err
	}
	cert, _, err := check(dir, der)
	if err != nil {
		return time.Time{}, "", err
	}
	return cert.NotAfter, cert.Issuer.CommonName, nil
}

// CheckHost returns Denied unless the certificate is of the fleet's CA, now valid, and the given host's.
func CheckHost(dir string, der []byte, want drover.HostID) (*x509.Certificate, error) {
	cert, host, err := check(dir, der)
	if err == nil && host != want {
		err = drover.Errorf(drover.Denied, "the certificate is that of host %q, not of host %q", host, want)
	}
	return cert, err
}

// CheckControl returns the control host that the certificate is of. Denied unless it is of the fleet's CA, now valid, and a control host's.
func CheckControl(dir string, der []byte) (*x509.Certificate, drover.HostID, error) {
	cert, host, err := check(dir, der)
	if err == nil && !IsControl(cert) {
		err = drover.Errorf(drover.Denied, "the certificate of host %q is not that of a control host", host)
	}
	return cert, host, err
}

// IsControl reports whether a certificate, which must have been verified, is that of a control host.
func IsControl(cert *x509.Certificate) bool {
	return slices.Contains(cert.Subject.OrganizationalUnit, controlUnit)
}

func check(dir string, der []byte) (*x509.Certificate, drover.HostID, error) {
	pool, err := loadCA(dir)
	if err != nil {
		return nil, "", err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, "", drover.Errorf(drover.Denied, "the certificate cannot be read: %w", err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return nil, "", drover.Errorf(drover.Denied, "the certificate is not one of this fleet: %w", err)
	}
	if name := cert.Subject.CommonName; !drover.ValidName(name) {
		return nil, "", drover.Errorf(drover.Denied, "the certificate names %q, which is not a host ID", name)
	}
	return cert, drover.HostID(cert.Subject.CommonName), nil
}

// Fingerprint tells the key of a certificate, which outlives the certificate.
func Fingerprint(cert *x509.Certificate) []byte {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return sum[:]
}

// SignAsControl signs a message as the directory's control host.
func SignAsControl(dir string, message []byte) ([]byte, error) {
	key, err := readKey(filepath.Join(dir, controlPair+"-key.pem"))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(message)
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot sign as a control host: %w", err)
	}
	return signature, nil
}

// VerifyControl returns Denied unless a control host of the fleet, whose certificate is given, signed the message.
func VerifyControl(dir string, der, message, signature []byte) (drover.HostID, error) {
	cert, host, err := CheckControl(dir, der)
	if err != nil {
		return "", err
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	sum := sha256.Sum256(message)
	if !ok || !ecdsa.VerifyASN1(key, sum[:], signature) {
		return "", drover.Errorf(drover.Denied, "the message is not signed by control host %q", host)
	}
	return host, nil
}

// readPrivate reads the private key of a pair.
func readPrivate(dir, pair string) (*ecdsa.PrivateKey, error) {
	key, err := readKey(filepath.Join(dir, pair+"-key.pem"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, drover.Errorf(drover.Precondition, "this host has no %s key: %w", pair, err)
	}
	return key, err
}
