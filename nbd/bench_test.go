package nbd

import (
	"context"
	"fmt"
	"sync"
	"testing"
)

// flat is memory without checks, so that a benchmark measures the protocol alone.
type flat struct {
	*memory
	content []byte
}

func (f *flat) ReadAt(_ context.Context, p []byte, off int64) error {
	copy(p, f.content[off:])
	return nil
}

func (f *flat) WriteAt(_ context.Context, p []byte, off int64, _ bool) error {
	copy(f.content[off:], p)
	return nil
}

// flatInline can do everything at once.
type flatInline struct{ *flat }

func (f flatInline) TryReadAt(p []byte, off int64) (bool, error) {
	copy(p, f.content[off:])
	return true, nil
}

func (f flatInline) TryWriteAt(p []byte, off int64) (bool, error) {
	copy(f.content[off:], p)
	return true, nil
}

// BenchmarkRoundTrip measures client and server together, in one process. Both must do 4 KiB requests without allocations.
func BenchmarkRoundTrip(b *testing.B) {
	const size = 64 << 20
	for _, network := range []string{"unix", "tls"} {
		for _, inline := range []bool{true, false} {
			plain := &flat{memory: newMemory(b, 0), content: make([]byte, size)}
			s := newShelf()
			s.add("disk", plain, size, false)
			if inline {
				s.add("disk", flatInline{plain}, size, false)
			}
			ca := newAuthority(b, "ca")
			socket := "unix"
			if network == "tls" {
				socket = "tcp"
			}
			address := startServer(b, socket, s, func(cfg *ServerConfig) {
				if network == "tls" {
					cfg.TLS = ca.server()
				}
			})
			c := dial(b, socket, address, "disk", func(cfg *ClientConfig) {
				if network == "tls" {
					cfg.TLS = ca.client("client")
				}
			})
			for _, n := range []int{4 << 10, 1 << 20} {
				for _, depth := range []int{1, 32} {
					name := fmt.Sprintf("%s/inline=%v/size=%d/depth=%d", network, inline, n, depth)
					b.Run("read/"+name, func(b *testing.B) { load(b, depth, n, size, c.ReadAt) })
					b.Run("write/"+name, func(b *testing.B) {
						load(b, depth, n, size, func(ctx context.Context, p []byte, off int64) error { return c.WriteAt(ctx, p, off, false) })
					})
				}
			}
		}
	}
}

// load makes b.N requests from depth goroutines.
func load(b *testing.B, depth, n, size int, do func(context.Context, []byte, int64) error) {
	b.ReportAllocs()
	b.SetBytes(int64(n))
	ctx := context.Background()
	var wg sync.WaitGroup
	for d := range depth {
		wg.Go(func() {
			p := make([]byte, n)
			for i := d; i < b.N; i += depth {
				if err := do(ctx, p, int64(i*n%size)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// The hot path must not allocate: neither in the client nor in the server, inline or through workers.
func TestSmallRequestsDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Log("under the race detector pools drop things at random: checked without it")
		return
	}
	const size = 1 << 20
	plain := &flat{memory: newMemory(t, 0), content: make([]byte, size)}
	for name, backend := range map[string]Backend{"inline": flatInline{plain}, "worker": plain} {
		t.Run(name, func(t *testing.T) {
			s := newShelf()
			s.add("disk", backend, size, false)
			c := dial(t, "unix", startServer(t, "unix", s, nil), "disk", nil)
			ctx, p := context.Background(), make([]byte, 4096)
			for what, do := range map[string]func() error{
				"read":  func() error { return c.ReadAt(ctx, p, 8192) },
				"write": func() error { return c.WriteAt(ctx, p, 8192, false) },
			} {
				var failed error
				allocs := testing.AllocsPerRun(2000, func() {
					if err := do(); err != nil {
						failed = err
					}
				})
				if failed != nil {
					t.Fatal(failed)
				}
				if allocs >= 1 {
					t.Errorf("a %s of 4 KiB makes %v allocations", what, allocs)
				}
			}
		})
	}
}
