package manifest

import (
	"crypto/sha256"
	"encoding/hex"

	"drover"
)

// Hash is a SHA-256.
type Hash [sha256.Size]byte

// Sum returns the hash of some bytes.
func Sum(b []byte) Hash { return sha256.Sum256(b) }

// String returns the hash in 64 lower-case hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText is encoding.TextMarshaler's.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText is encoding.TextUnmarshaler's.
func (h *Hash) UnmarshalText(b []byte) (err error) {
	*h, err = ParseHash(string(b))
	return err
}

// ParseHash reads what String wrote, and nothing else.
func ParseHash(s string) (h Hash, err error) {
	if len(s) != hex.EncodedLen(len(h)) {
		return h, notHash(s)
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil || h.String() != s {
		return Hash{}, notHash(s)
	}
	return h, nil
}

func notHash(s string) error {
	const most = 80
	return drover.Errorf(drover.Invalid, "%.*q is no SHA-256: 64 lower-case hexadecimal digits are expected", most, s)
}
