package fleetca

import (
	"crypto/ecdsa"
	"crypto/hpke"
	"crypto/x509"

	"drover"
)

// Secrets are sealed to a certificate by HPKE (RFC 9180): P-256, HKDF-SHA256, AES-256-GCM. info says what the secret is and for whom; what was sealed
// with another info does not open.

// Seal encrypts a secret so that only the owner of the certificate's key can read it. The certificate must have been checked.
func Seal(cert *x509.Certificate, info string, secret []byte) ([]byte, error) {
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, drover.Errorf(drover.Invalid, "cannot seal for host %q: its certificate's key is a %T", cert.Subject.CommonName, cert.PublicKey)
	}
	point, err := key.ECDH()
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "cannot seal for host %q: %w", cert.Subject.CommonName, err)
	}
	public, err := hpke.NewDHKEMPublicKey(point)
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "cannot seal for host %q: %w", cert.Subject.CommonName, err)
	}
	sealed, err := hpke.Seal(public, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(info), secret)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot seal for host %q: %w", cert.Subject.CommonName, err)
	}
	return sealed, nil
}

// OpenAsHost opens what was sealed to the certificate of HostCertificate. Denied when it was sealed to another, or was changed.
func OpenAsHost(dir, info string, sealed []byte) ([]byte, error) {
	return open(dir, clientPair, info, sealed)
}

// OpenAsControl opens what was sealed to the certificate of ControlCertificate. Denied when it was sealed to another, or was changed.
func OpenAsControl(dir, info string, sealed []byte) ([]byte, error) {
	return open(dir, controlPair, info, sealed)
}

func open(dir, pair, info string, sealed []byte) ([]byte, error) {
	key, err := readPrivate(dir, pair)
	if err != nil {
		return nil, err
	}
	scalar, err := key.ECDH()
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "the %s key of this host cannot open what is sealed: %w", pair, err)
	}
	private, err := hpke.NewDHKEMPrivateKey(scalar)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "the %s key of this host cannot open what is sealed: %w", pair, err)
	}
	secret, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(info), sealed)
	if err != nil {
		return nil, drover.Errorf(drover.Denied, "what is sealed cannot be opened with the %s key of this host: it is for another one, or damaged", pair)
	}
	return secret, nil
}
