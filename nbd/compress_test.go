package nbd

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"drover"
)

// text fills p with what compresses to a fraction.
func text(p []byte, seed int) {
	for i := 0; i < len(p); {
		i += copy(p[i:], fmt.Sprintf("line %d of the log says %d things; ", i, i*seed%977))
	}
}

// linkOf is a rate of the link for tests, in bytes per second.
func linkOf(rate float64) func(*ServerConfig) {
	return func(cfg *ServerConfig) {
		cfg.linkRate = func(net.Conn) func() float64 { return func() float64 { return rate } }
	}
}

// mixed is content with text, random data, zeroes, and an end that is no whole block.
func mixed() []byte {
	p := make([]byte, 3<<20+700)
	text(p[:1<<20], 7)
	fill(p[1<<20:3<<19], 1)
	text(p[2<<20:], 11)
	return p
}

// counted connects with a counter.
func counted(t *testing.T, network, address string, compress bool) (*Client, *Traffic) {
	t.Helper()
	c, count := dial(t, network, address, "disk", func(cfg *ClientConfig) { cfg.Compress = compress }), new(Traffic)
	c.Count(count)
	return c, count
}

func TestCompressedRepliesHoldWhatPlainOnesDo(t *testing.T) {
	content := mixed()
	for _, sparse := range []bool{true, false} {
		m := newMemory(t, len(content))
		copy(m.content, content)
		s := newShelf()
		s.add("disk", m, len(content), false)
		if sparse {
			s.add("disk", &quick{memory: m}, len(content), false)
		}
		c, count := counted(t, "unix", startServer(t, "unix", s, linkOf(1)), true)
		for _, n := range []int{1, 512, minPacked - 1, minPacked, 5000, 64 << 10, 64<<10 + 1, 1 << 20, len(content)} {
			for off := 0; off+n <= len(content); off += max(n, 300<<10) {
				got := make([]byte, n)
				if err := c.ReadAt(t.Context(), got, int64(off)); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, content[off:off+n]) {
					t.Fatalf("%d bytes at %d are not those of the export", n, off)
				}
			}
		}
		if data, wire := count.Data.Load(), count.Wire.Load(); wire >= data*3/4 || data == 0 {
			t.Errorf("%d bytes on the wire for %d of data (sparse replies: %v)", wire, data, sparse)
		}
		if _, err := c.Extents(t.Context(), ContextAllocation, 0, 1<<20); err != nil || c.HasContext(contextCompressed) {
			t.Errorf("extents beside compression: %v; a context of its own: %v", err, c.HasContext(contextCompressed))
		}
	}
}

func TestManyCompressedRepliesAtOnce(t *testing.T) {
	content := mixed()
	m := newMemory(t, len(content))
	copy(m.content, content)
	s := newShelf()
	s.add("disk", &quick{memory: m}, len(content), false)
	c, _ := counted(t, "unix", startServer(t, "unix", s, linkOf(1)), true)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			got := make([]byte, 100<<10+w)
			for i := range 20 {
				off := (w*7919 + i*65537) % (len(content) - len(got))
				if err := c.ReadAt(t.Context(), got, int64(off)); err != nil || !bytes.Equal(got, content[off:off+len(got)]) {
					t.Errorf("a read at %d: %v, or other content", off, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestNothingIsCompressedUnasked(t *testing.T) {
	content := mixed()
	m := newMemory(t, len(content))
	copy(m.content, content)
	s := newShelf()
	s.add("disk", m, len(content), false)
	c, count := counted(t, "unix", startServer(t, "unix", s, linkOf(1)), false)
	if err := c.ReadAt(t.Context(), make([]byte, len(content)), 0); err != nil {
		t.Fatal(err)
	}
	if data, wire := count.Data.Load(), count.Wire.Load(); data != int64(len(content)) || wire != data {
		t.Errorf("%d bytes on the wire for %d of data", wire, data)
	}
}

func TestCompressionRestsWhereItDoesNotPay(t *testing.T) {
	content := make([]byte, 1<<20)
	text(content, 3)
	random := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{5}).Read(random) //nolint:errcheck // never fails
	for name, c := range map[string]struct {
		rate    float64
		content []byte
	}{"fast link": {math.Inf(1), content}, "random data": {1e9, random}} {
		p := &packer{encoder: newEncoder(), linkRate: func() float64 { return c.rate }}
		tries := 0
		dst := make([]byte, 0, len(c.content))
		for range 10 * retryPacked {
			if e := p.next(); e != asIs {
				tries++
				p.pack(e, dst, c.content)
			}
		}
		if tries < 8 || tries > 12 {
			t.Errorf("%s: compression was tried %d times in %d replies; once in %d is expected", name, tries, 10*retryPacked, retryPacked)
		}
	}
}

func TestCompressionComesBackWhenTheLinkSlowsDown(t *testing.T) {
	content := make([]byte, 1<<20)
	text(content, 3)
	rate := math.Inf(1)
	p := &packer{encoder: newEncoder(), linkRate: func() float64 { return rate }}
	dst := make([]byte, 0, len(content))
	for range 3 {
		if _, ok := p.pack(p.next(), dst, content); ok {
			t.Fatal("a reply was compressed for a link that has no bounds")
		}
	}
	if p.next() == compress {
		t.Fatal("compression goes on though the link has no bounds")
	}
	rate, p.measured = 1, time.Time{}
	for range 3 {
		e := p.next()
		if e != compress {
			t.Fatal("nothing is compressed for a link of a byte per second")
		}
		if _, ok := p.pack(e, dst, content); !ok {
			t.Fatal("text was not compressed")
		}
	}
}

func TestTheMeterLeavesIdleTimeOut(t *testing.T) {
	var m linkMeter
	if r := m.rate(0, 0); r != 0 {
		t.Errorf("a connection that sent nothing has the rate %v", r)
	}
	for i := range uint64(10) {
		m.rate(i*1000, i*100) // 1000 bytes in 0.1 ms
		if r := m.rate(i*1000, i*100); i > 0 && math.Abs(r-1e7) > 1 {
			t.Errorf("the rate is %v after %d measurements", r, i)
		}
	}
	for i := range uint64(60) {
		m.rate(10000+i*1000, 1000+i*10000)
	}
	if r := m.rate(69000, 601000); math.Abs(r-1e5) > 1e4 {
		t.Errorf("the rate is %v after the link became a hundred times slower", r)
	}
}

func TestTheKernelMeasuresTheLink(t *testing.T) {
	content := mixed()
	m := newMemory(t, len(content))
	copy(m.content, content)
	s := newShelf()
	s.add("disk", m, len(content), false)
	rates := make(chan float64, 1000)
	c, _ := counted(t, "tcp", startServer(t, "tcp", s, func(cfg *ServerConfig) {
		cfg.linkRate = func(conn net.Conn) func() float64 {
			measure := rateOfLink(conn)
			return func() float64 {
				r := measure()
				rates <- r
				return r
			}
		}
	}), true)
	p := make([]byte, len(content))
	for rate := 0.0; rate == 0; {
		if err := c.ReadAt(t.Context(), p, 0); err != nil {
			t.Fatal(err)
		}
		select {
		case rate = <-rates:
		default:
		}
		if math.IsInf(rate, 0) || rate < 0 {
			t.Fatalf("the rate of a TCP connection is %v", rate)
		}
	}
}

func TestDamagedCompressedDataIsRefused(t *testing.T) {
	plain := make([]byte, 8192)
	text(plain, 5)
	packed := newEncoder().EncodeAll(plain, nil)
	d, err := newDecoder()
	if err != nil {
		t.Fatal(err)
	}
	room := bytes.Repeat([]byte{0xee}, 3*len(plain))
	p := room[len(plain) : 2*len(plain)]
	if err := unpack(d, p, packed); err != nil || !bytes.Equal(p, plain) {
		t.Fatalf("%v, or other content", err)
	}
	for what, bad := range map[string]struct {
		p, packed []byte
	}{
		"nothing":       {p, nil},
		"half of it":    {p, packed[:len(packed)/2]},
		"two frames":    {p, append(bytes.Clone(packed), packed...)},
		"less is there": {room[len(plain) : 2*len(plain)+1], packed},
		"more is there": {p[:100], packed},
		"not zstd":      {p, plain},
	} {
		err := unpack(d, bad.p, bad.packed)
		wantCode(t, err, drover.Unavailable)
		for i, v := range room {
			if v != 0xee && (i < len(plain) || i > 2*len(plain)) {
				t.Fatalf("%s: byte %d around the place was written", what, i)
			}
		}
	}
}

// FuzzUnpack decompresses arbitrary bytes: whatever they are, nothing outside the place is written.
func FuzzUnpack(f *testing.F) {
	e := newEncoder()
	for _, n := range []int{1, 100, 4096, 20000} {
		plain := make([]byte, n)
		text(plain, n)
		f.Add(n, e.EncodeAll(plain, nil))
		f.Add(n-1, e.EncodeAll(plain, nil))
		f.Add(n+1, e.EncodeAll(make([]byte, n), nil))
	}
	d, err := newDecoder()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, n int, packed []byte) {
		if n < 0 || n > 1<<16 {
			return
		}
		guard := bytes.Repeat([]byte{0xee}, n+64)
		if err := unpack(d, guard[32:32+n], packed); err == nil && n > 0 && len(packed) == 0 {
			t.Error("nothing was taken for data")
		}
		for i, v := range guard {
			if v != 0xee && (i < 32 || i >= 32+n) {
				t.Fatalf("byte %d around the place was written", i)
			}
		}
	})
}
