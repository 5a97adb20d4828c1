package drover

import (
	"fmt"
	"strings"
)

// KeyID names a key: "key_" and 16 lower-case hexadecimal digits. Records and logs hold it, never the key.
type KeyID string

// NewKeyID returns a fresh random key ID.
func NewKeyID() KeyID { return KeyID("key_" + randomHex(16)) }

// CipherAES256XTS is the one algorithm: AES-256 in XTS mode (IEEE 1619), tweaked by the number of the sector.
const CipherAES256XTS = "aes-256-xts"

// Cipher says how a disk is encrypted. It is part of a volume's description, and of every layer's, export's and snapshot's of it.
type Cipher struct {
	// Algorithm is CipherAES256XTS.
	Algorithm string `json:"algorithm"`
	// SectorSize is what is encrypted at a time, in bytes.
	SectorSize int   `json:"sector_size"`
	Key        KeyID `json:"key"`
}

// Sizes of the one algorithm.
const (
	// CipherSectorSize is the sector size in bytes.
	CipherSectorSize = 512
	// CipherKeySize is the size of a key in bytes: one half encrypts the data, the other the numbers of the sectors.
	CipherKeySize = 64
)

// NewCipher describes the encryption of a new disk, with a fresh key ID.
func NewCipher() *Cipher {
	return &Cipher{Algorithm: CipherAES256XTS, SectorSize: CipherSectorSize, Key: NewKeyID()}
}

// Valid reports whether the ID has the form of a key ID. Keys are kept in files of that name.
func (id KeyID) Valid() bool {
	hex, ok := strings.CutPrefix(string(id), "key_")
	return ok && len(hex) == 16 && strings.Trim(hex, "0123456789abcdef") == ""
}

// Check returns Invalid unless this version of Drover can encrypt and decrypt as the description says. Nil is no encryption, and good.
func (c *Cipher) Check() error {
	switch {
	case c == nil:
		return nil
	case c.Algorithm != CipherAES256XTS:
		return Errorf(Invalid, "the encryption algorithm %q is not known here: %s is", c.Algorithm, CipherAES256XTS).WithField("cipher.algorithm").
			WithHint("a newer version of Drover made the volume; bring this host to that version")
	case c.SectorSize != CipherSectorSize:
		return Errorf(Invalid, "encryption in sectors of %d bytes is not known here: %d is", c.SectorSize, CipherSectorSize).WithField("cipher.sector_size").
			WithHint("a newer version of Drover made the volume; bring this host to that version")
	case !c.Key.Valid():
		return Errorf(Invalid, "%q is no key ID", c.Key).WithField("cipher.key")
	}
	return nil
}

// Equal reports whether two disks are encrypted alike, with the same key; nil is not encrypted.
func (c *Cipher) Equal(other *Cipher) bool {
	if c == nil || other == nil {
		return c == other
	}
	return *c == *other
}

// String says it in a few words, for messages.
func (c *Cipher) String() string {
	if c == nil {
		return "not encrypted"
	}
	return fmt.Sprintf("encrypted by %s in sectors of %d bytes with key %s", c.Algorithm, c.SectorSize, c.Key)
}
