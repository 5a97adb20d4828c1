package nbd

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// step is one request of the random load. Ranges lie in the region of the one who makes it.
type step struct {
	kind   string
	off, n int
	seed   byte
	flag   bool
	client int
}

func steps(region int) *rapid.Generator[[]step] {
	one := rapid.Custom(func(t *rapid.T) step {
		off := rapid.IntRange(0, region-1).Draw(t, "off")
		n := rapid.OneOf(rapid.IntRange(1, 64), rapid.IntRange(1, region)).Draw(t, "n")
		return step{
			kind: rapid.SampledFrom([]string{"read", "read", "write", "write", "zero", "discard", "flush", "extents"}).Draw(t, "kind"),
			off:  off, n: min(n, region-off), seed: rapid.Byte().Draw(t, "seed"), flag: rapid.Bool().Draw(t, "flag"),
			client: rapid.IntRange(0, 1).Draw(t, "client"),
		}
	})
	return rapid.SliceOfN(one, 1, 25)
}

// fill makes content that differs from place to place.
func fill(p []byte, seed byte) {
	for i := range p {
		p[i] = byte(i>>8)*31 + byte(i)*7 + seed
	}
}

// do makes the request and compares with the model, the content of this region.
func (s step) do(ctx context.Context, c *Client, base int, model []byte) error {
	at, off := model[s.off:s.off+s.n], int64(base+s.off)
	switch s.kind {
	case "read":
		got := bytes.Repeat([]byte{0xee}, s.n)
		if err := c.ReadAt(ctx, got, off); err != nil {
			return err
		}
		if !bytes.Equal(got, at) {
			return fmt.Errorf("%+v: read differs from the model", s)
		}
	case "write":
		fill(at, s.seed)
		return c.WriteAt(ctx, at, off, s.flag)
	case "zero":
		clear(at)
		return c.Zero(ctx, off, int64(s.n), s.flag, s.seed%2 == 0)
	case "discard":
		clear(at)
		return c.Discard(ctx, off, int64(s.n), s.flag)
	case "flush":
		return c.Flush(ctx)
	case "extents":
		extents, err := c.Extents(ctx, ContextAllocation, off, int64(s.n))
		if err != nil {
			return err
		}
		for at := s.off; len(extents) > 0; extents = extents[1:] {
			e := extents[0]
			if e.Flags&FlagZero != 0 && len(bytes.Trim(model[at:at+int(e.Length)], "\x00")) != 0 {
				return fmt.Errorf("%+v: %d bytes at %d are not zeroes as said", s, e.Length, at)
			}
			at += int(e.Length)
		}
	}
	return nil
}

// Four goroutines over two connections make random requests at the same time, each in its own region; all that is read, and the content at the
// end, must be what a plain byte slice would hold.
func TestRandomConcurrentLoadMatchesAByteSlice(t *testing.T) {
	for _, tc := range []struct {
		name, network string
		tls           bool
		backend       func(*memory) Backend
	}{
		{"unix", "unix", false, func(m *memory) Backend { return m }},
		{"unix, inline", "unix", false, func(m *memory) Backend { return &quick{memory: m} }},
		{"tls, inline", "tcp", true, func(m *memory) Backend { return &quick{memory: m} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const workers, region = 4, 300_000
			m := newMemory(t, workers*region)
			s := newShelf()
			s.add("disk", tc.backend(m), workers*region, false)
			ca := newAuthority(t, "ca")
			address := startServer(t, tc.network, s, func(cfg *ServerConfig) {
				if tc.tls {
					cfg.TLS = ca.server()
				}
			})
			var clients [2]*Client
			for i := range clients {
				clients[i] = dial(t, tc.network, address, "disk", func(cfg *ClientConfig) {
					if tc.tls {
						cfg.TLS = ca.client("client")
					}
				})
			}
			model := make([]byte, workers*region) // lives on from check to check, as the export does
			rapid.Check(t, func(rt *rapid.T) {
				plans := rapid.SliceOfN(steps(region), workers, workers).Draw(rt, "plans")
				errs := make([]error, workers)
				var wg sync.WaitGroup
				for w, plan := range plans {
					wg.Go(func() {
						for _, s := range plan {
							mine := model[w*region : (w+1)*region]
							if err := s.do(context.Background(), clients[s.client], w*region, mine); err != nil {
								errs[w] = err
								return
							}
						}
					})
				}
				wg.Wait()
				for w, err := range errs {
					if err != nil {
						rt.Fatalf("worker %d: %v", w, err)
					}
				}
				if !bytes.Equal(m.bytes(), model) {
					rt.Fatal("the content at the end differs from the model")
				}
			})
		})
	}
}
