package volume

import (
	"encoding/binary"
	"math/bits"

	"golang.org/x/sys/cpu"
)

// roundKeys is an expanded AES-256 key (FIPS 197).
type roundKeys [15][aesBlock]byte

// wide encrypts and decrypts a sector at once by the CPU's instructions for AES. crypto/aes does one block at a time, at a fifth of the speed.
type wide struct{ encrypt, decrypt roundKeys }

// newWide returns nil where the CPU has no such instructions.
func newWide(key []byte) *wide {
	if !cpu.X86.HasAES {
		return nil
	}
	w := &wide{encrypt: expand(key)}
	for i := range w.decrypt { // the equivalent inverse cipher, FIPS 197 5.3.5
		w.decrypt[i] = w.encrypt[len(w.encrypt)-1-i]
		if i > 0 && i < len(w.decrypt)-1 {
			invMixColumns(&w.decrypt[i])
		}
	}
	return w
}

// expand makes the round keys of an AES-256 key, FIPS 197 5.2.
func expand(key []byte) (keys roundKeys) {
	const words = 8 // of the key
	var w [4 * len(keys)]uint32
	for i := range w {
		if i < words {
			w[i] = binary.LittleEndian.Uint32(key[4*i:])
			continue
		}
		t := w[i-1]
		switch i % words {
		case 0:
			t = bits.RotateLeft32(subWord(t), -8) ^ 1<<(i/words-1)
		case words / 2:
			t = subWord(t)
		}
		w[i] = w[i-words] ^ t
	}
	for i, word := range w {
		binary.LittleEndian.PutUint32(keys[i/4][i%4*4:], word)
	}
	return keys
}

// encryptSector sets dst to the encrypted src. Both may be the same.
func (w *wide) encryptSector(dst, src []byte, mask *[cipherSector]byte) {
	_, _ = dst[cipherSector-1], src[cipherSector-1]
	encryptMasked(&w.encrypt, &dst[0], &src[0], &mask[0])
}

func (w *wide) decryptSector(p []byte, mask *[cipherSector]byte) {
	_ = p[cipherSector-1]
	decryptMasked(&w.decrypt, &p[0], &p[0], &mask[0])
}

// encryptMasked encrypts the 32 blocks of a sector, each XORed with its mask before and after.
//
//go:noescape
func encryptMasked(keys *roundKeys, dst, src, mask *byte)

// decryptMasked is the reverse, with the keys of the equivalent inverse cipher.
//
//go:noescape
func decryptMasked(keys *roundKeys, dst, src, mask *byte)

// subWord applies AES's S-box to each byte.
func subWord(w uint32) uint32

// invMixColumns turns a round key into one of the equivalent inverse cipher.
//
//go:noescape
func invMixColumns(key *[aesBlock]byte)
