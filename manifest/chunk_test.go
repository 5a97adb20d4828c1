package manifest

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"

	"drover"
)

func codec(t testing.TB) *Codec {
	t.Helper()
	c, err := NewCodec(2)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return b
}

func TestChunksArePackedWhenItPays(t *testing.T) {
	c := codec(t)
	text := bytes.Repeat([]byte("to be or not to be "), ChunkSize/19+1)[:ChunkSize]
	for _, x := range []struct {
		name   string
		chunk  []byte
		try    bool
		packed bool
	}{
		{"text", text, true, true},
		{"text not to be tried", text, false, false},
		{"noise", random(1, ChunkSize), true, false},
		{"noise with holes, not to be tried", append(random(1, ChunkSize/2), make([]byte, ChunkSize/2)...), false, true},
		{"half noise", append(random(1, ChunkSize/2), text[:ChunkSize/2]...), true, true},
	} {
		stored := c.Encode(nil, x.chunk, x.try)
		if packed := len(stored) < ChunkSize; packed != x.packed || len(stored) > MaxChunkEncoded {
			t.Errorf("%s: stored in %d bytes", x.name, len(stored))
		}
		got := make([]byte, ChunkSize)
		if err := c.Decode(got, stored, Sum(x.chunk)); err != nil || !bytes.Equal(got, x.chunk) {
			t.Errorf("%s: %v", x.name, err)
		}
		stored[len(stored)/2] ^= 1
		if err := c.Decode(got, stored, Sum(x.chunk)); !drover.Is(err, drover.Internal) {
			t.Errorf("%s with a flipped bit: %v", x.name, err)
		}
	}
}

// A small file that unpacks to gigabytes takes no more memory than a chunk.
func TestABombIsRefused(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, ChunkSize - 1, ChunkSize + 1, 16 << 20} {
		bomb := enc.EncodeAll(make([]byte, n), []byte{storedZstd})
		if err := codec(t).Decode(make([]byte, ChunkSize), bomb, Hash{}); !drover.Is(err, drover.Internal) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func FuzzChunk(f *testing.F) {
	c := codec(f)
	f.Add(c.Encode(nil, make([]byte, ChunkSize), true))
	f.Add([]byte{storedPlain, 1, 2})
	f.Add([]byte{9})
	buf := make([]byte, ChunkSize)
	f.Fuzz(func(t *testing.T, stored []byte) {
		want := Sum([]byte("something else"))
		if err := c.Decode(buf, stored, want); err == nil {
			t.Fatal("a chunk with another hash was taken")
		}
	})
}

func FuzzManifest(f *testing.F) {
	m, pages := example()
	b, err := m.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(pages[0].Encode())
	f.Add([]byte(`{"version":1,"volume":"v","snapshot":"s","size":512,"chunks":0,"checksum":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := Decode(b); err == nil {
			again, err := m.Encode()
			if err != nil || !bytes.Equal(again, b) {
				t.Fatalf("%q decodes and encodes to %q, %v", b, again, err)
			}
		}
		if p, err := DecodePage(b); err == nil && !bytes.Equal(p.Encode(), b) {
			t.Fatalf("page %x encodes to %x", b, p.Encode())
		}
		if n, err := ParseName(string(b)); err == nil {
			var again string
			switch n.Kind {
			case KindManifest:
				again = ManifestName(n.Volume, n.Snapshot)
			case KindPage:
				again = PageName(n.Volume, n.Hash)
			case KindChunk:
				again = ChunkName(n.Volume, n.Hash)
			}
			if again != string(b) {
				t.Fatalf("%q is %+v, which is %q", b, n, again)
			}
		}
	})
}
