package ramcopy

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"

	"drover"
)

// pageSize is that of the pages that are compared.
const pageSize = int64(drover.BlockSize)

// tag tells a page's content; that of zeroes is the zero value, so that memory without content takes none for its tags either.
type tag [16]byte

// tagger makes tags. It is safe for concurrent use.
type tagger struct {
	aead  cipher.AEAD
	nonce []byte
	zero  tag
}

// newTagger makes a tagger with a key of its own.
func newTagger() (*tagger, error) {
	key := make([]byte, 16)
	rand.Read(key) // never fails: it ends the process instead
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	// With one nonce for all, a tag is GHASH of the page and a constant, which the zero page's takes away. No tag is ever shown to anybody, which is
	// what a nonce of its own for each would be for.
	t := &tagger{aead: aead, nonce: make([]byte, aead.NonceSize())}
	t.zero = t.of(make([]byte, pageSize))
	return t, nil
}

func (t *tagger) of(page []byte) (out tag) {
	t.aead.Seal(out[:0], t.nonce, nil, page)
	subtle.XORBytes(out[:], out[:], t.zero[:])
	return out
}
