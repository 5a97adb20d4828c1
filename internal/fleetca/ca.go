package fleetca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"drover"
	"drover/internal/durable"
)

// Lifetimes. A host certificate is issued again when less than a third of its life is left.
const (
	caLife   = 10 * 365 * 24 * time.Hour
	hostLife = 365 * 24 * time.Hour
	// clockSkew is how far a host's clock may be behind that of the CA.
	clockSkew = time.Hour
)

// The CA's files.
const (
	caCertFile = "ca-cert.pem"
	caKeyFile  = "ca-key.pem"
)

// CA is a certificate authority with its private key.
type CA struct {
	cert    *x509.Certificate
	certPEM []byte
	key     *ecdsa.PrivateKey
}

// Ensure returns the CA of the directory, and makes one if there is none: ECDSA P-256, ten years. Precondition when the directory
// holds a certificate without its key. Calls for one directory must not overlap.
func Ensure(dir string) (*CA, error) { return ensureAt(dir, time.Now()) }

func ensureAt(dir string, now time.Time) (*CA, error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot make the CA directory %q: %w", dir, err)
	}
	if err := durable.RemoveTemp(dir); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot clean the CA directory %q: %w", dir, err)
	}
	certPEM, err := os.ReadFile(filepath.Join(dir, caCertFile))
	if errors.Is(err, fs.ErrNotExist) {
		return makeCA(dir, now)
	}
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot read the CA's certificate: %w", err)
	}
	cert, err := parseCert(certPEM)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot read the CA's certificate in %q: %w", dir, err)
	}
	key, err := readKey(filepath.Join(dir, caKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, drover.Errorf(drover.Precondition, "the CA in %q has a certificate but no key", dir).
			WithHint("restore %s, or remove the directory to start a new CA", caKeyFile)
	}
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, drover.Errorf(drover.Precondition, "the CA in %q has a key that is not its certificate's", dir)
	}
	return &CA{cert: cert, certPEM: certPEM, key: key}, nil
}

// makeCA writes the key first: a key without a certificate is an unfinished CA, which is made again with that key.
func makeCA(dir string, now time.Time) (*CA, error) {
	keyPath := filepath.Join(dir, caKeyFile)
	key, err := readKey(keyPath)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = writeNewKey(keyPath)
	}
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Drover fleet CA"},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot sign the CA's certificate: %w", err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := durable.WriteFile(filepath.Join(dir, caCertFile), certPEM, 0o644); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot write the CA's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot parse the CA's new certificate: %w", err)
	}
	return &CA{cert: cert, certPEM: certPEM, key: key}, nil
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot make a serial number: %w", err)
	}
	return serial, nil
}

func writeNewKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot generate a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot encode a key: %w", err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := durable.WriteFile(path, block, 0o600); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot write a key: %w", err)
	}
	return key, nil
}

// readKey reads an ECDSA key. A missing file is an fs.ErrNotExist.
func readKey(path string) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot read a key: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, drover.Errorf(drover.Internal, "cannot read the key %q: it is not PEM", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot read the key %q: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, drover.Errorf(drover.Internal, "cannot read the key %q: it is a %T, not an ECDSA key", path, parsed)
	}
	return key, nil
}

func parseCert(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("it is not PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
