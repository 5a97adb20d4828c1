package mesh

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"

	"drover"
)

// PrivateKey is a host's WireGuard key. It shows itself to nobody: only Reveal has it.
type PrivateKey struct{ key *ecdh.PrivateKey }

// NewPrivateKey makes a key.
func NewPrivateKey() (PrivateKey, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return PrivateKey{}, drover.Errorf(drover.Internal, "cannot make a WireGuard key: %w", err)
	}
	return PrivateKey{k}, nil
}

// ParsePrivateKey reads what Reveal wrote.
func ParsePrivateKey(text string) (PrivateKey, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return PrivateKey{}, drover.Errorf(drover.Invalid, "the private key is not base64")
	}
	k, err := ecdh.X25519().NewPrivateKey(raw)
	if err != nil {
		return PrivateKey{}, drover.Errorf(drover.Invalid, "the private key has %d bytes, not 32", len(raw))
	}
	return PrivateKey{k}, nil
}

// Reveal returns the key in base64.
func (k PrivateKey) Reveal() string { return base64.StdEncoding.EncodeToString(k.key.Bytes()) }

// Public returns the public key in base64.
func (k PrivateKey) Public() string {
	return base64.StdEncoding.EncodeToString(k.key.PublicKey().Bytes())
}

func (k PrivateKey) there() bool { return k.key != nil }

// String hides the key.
func (k PrivateKey) String() string { return "(private key)" }

// GoString hides the key.
func (k PrivateKey) GoString() string { return k.String() }

func (k PrivateKey) hex() string { return hex.EncodeToString(k.key.Bytes()) }

// HexKey turns a key from base64 into the form that WireGuard's configuration protocol has. Invalid for what is none.
func HexKey(text string) (string, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != 32 {
		return "", drover.Errorf(drover.Invalid, "%q is not a key: 32 bytes in base64", text)
	}
	return hex.EncodeToString(raw), nil
}
