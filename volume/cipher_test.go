package volume

import (
	"bytes"
	"crypto/aes"
	"crypto/sha512"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/xts"

	"drover"
)

// secretOf is the key of an ID in tests.
func secretOf(id drover.KeyID) []byte {
	sum := sha512.Sum512([]byte(id))
	return sum[:]
}

func testKey(tb testing.TB) *diskKey {
	tb.Helper()
	id := drover.NewKeyID()
	return must[*diskKey](tb)(newDiskKey(id, secretOf(id)))
}

func TestCipherGivesTheKnownAnswer(t *testing.T) {
	text := string(must[[]byte](t)(os.ReadFile("testdata/ieee1619.txt")))
	lines := strings.Fields(text[strings.IndexByte(text, '\n')+1:])
	var parts [4][]byte
	for _, i := range []int{0, 2, 3} {
		parts[i] = must[[]byte](t)(hex.DecodeString(lines[i]))
	}
	sector := must[int64](t)(strconv.ParseInt(lines[1], 0, 64))
	key := must[*diskKey](t)(newDiskKey("key_0000000000000000", parts[0]))
	got := make([]byte, cipherSector)
	key.encrypt(got, parts[2], sector*cipherSector)
	if !bytes.Equal(got, parts[3]) {
		t.Errorf("encrypted:\n%x", got)
	}
	key.decrypt(got, sector*cipherSector)
	if !bytes.Equal(got, parts[2]) {
		t.Errorf("decrypted:\n%x", got)
	}
}

func TestCipherAgreesWithTheLibrary(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	for i := range 50 {
		secret := pattern(uint64(i), cipherKey)
		library := must[*xts.Cipher](t)(xts.NewCipher(aes.NewCipher, secret))
		key := must[*diskKey](t)(newDiskKey("key_0000000000000000", secret))
		sector, n := r.Uint64N(maxSize/cipherSector), 1+r.IntN(20)
		src := pattern(r.Uint64(), int64(n*cipherSector))
		want, got := make([]byte, len(src)), bytes.Clone(src)
		for s := range n {
			part := s * cipherSector
			library.Encrypt(want[part:part+cipherSector], src[part:part+cipherSector], sector+uint64(s))
		}
		if i%2 == 1 {
			key.wide = nil // as on a CPU without the instructions
		}
		key.encrypt(got, got, int64(sector*cipherSector))
		if !bytes.Equal(got, want) {
			t.Fatalf("%d sectors from %d on are encrypted in another way", n, sector)
		}
		key.decrypt(got, int64(sector*cipherSector))
		if !bytes.Equal(got, src) {
			t.Fatalf("%d sectors from %d on are decrypted in another way", n, sector)
		}
	}
}

func TestCipherLeavesHolesAlone(t *testing.T) {
	key := testKey(t)
	p := make([]byte, 4*cipherSector)
	key.encrypt(p[cipherSector:2*cipherSector], p[cipherSector:2*cipherSector], cipherSector)
	if isZero(p) {
		t.Fatal("zeroes that are written are not encrypted")
	}
	key.decrypt(p, 0)
	if !isZero(p) {
		t.Error("a hole does not read as zeroes")
	}
}

func TestUnusableKeysAreRefused(t *testing.T) {
	for name, secret := range map[string][]byte{"short": make([]byte, 63), "long": make([]byte, 65), "same halves": bytes.Repeat([]byte{7}, 64)} {
		_, err := newDiskKey("key_0000000000000000", secret)
		if !drover.Is(err, drover.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkCipher(b *testing.B) {
	key := testKey(b)
	p := pattern(1, blockSize)
	b.Run("encrypt", func(b *testing.B) {
		b.SetBytes(blockSize)
		buf := make([]byte, blockSize)
		for i := 0; b.Loop(); i++ {
			key.encrypt(buf, p, int64(i)*blockSize)
		}
	})
	b.Run("decrypt", func(b *testing.B) {
		b.SetBytes(blockSize)
		for i := 0; b.Loop(); i++ {
			key.decrypt(p, int64(i)*blockSize)
		}
	})
	b.Run("narrow", func(b *testing.B) {
		narrow := *key
		narrow.wide = nil
		b.SetBytes(blockSize)
		buf := make([]byte, blockSize)
		for i := 0; b.Loop(); i++ {
			narrow.encrypt(buf, p, int64(i)*blockSize)
		}
	})
	library, err := xts.NewCipher(aes.NewCipher, secretOf("library"))
	noErr(b, err)
	b.Run("library", func(b *testing.B) {
		b.SetBytes(blockSize)
		buf := make([]byte, blockSize)
		for b.Loop() {
			for s := range blockSize / cipherSector {
				library.Encrypt(buf[s*cipherSector:(s+1)*cipherSector], p[s*cipherSector:(s+1)*cipherSector], uint64(s))
			}
		}
	})
}
