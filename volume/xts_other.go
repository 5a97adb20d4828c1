//go:build !amd64

package volume

// wide is not there on this CPU: crypto/aes does the work.
type wide struct{}

func newWide([]byte) *wide { return nil }

func (*wide) encryptSector([]byte, []byte, *[cipherSector]byte) {}
func (*wide) decryptSector([]byte, *[cipherSector]byte)         {}
