package drover

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
