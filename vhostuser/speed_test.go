package vhostuser

import (
	"context"
	"testing"

	"drover/vhostuser/vhosttest"
)

// nothing is a Backend that does nothing.
type nothing struct{ trying bool }

func (nothing) ReadVec(context.Context, [][]byte, int64) error       { return nil }
func (nothing) WriteVec(context.Context, [][]byte, int64) error      { return nil }
func (nothing) Flush(context.Context) error                          { return nil }
func (nothing) Discard(context.Context, int64, int64, bool) error    { return nil }
func (nothing) Zero(context.Context, int64, int64, bool, bool) error { return nil }
func (n nothing) TryReadVec([][]byte, int64) (bool, error)           { return n.trying, nil }
func (n nothing) TryWriteVec([][]byte, int64) (done bool, err error) { return n.trying, nil }
func beginWith(tb testing.TB, b Backend, num int) *vhosttest.Frontend {
	tb.Helper()
	f := vhosttest.NewFrontend(vhosttest.NewGuest(tb, num))
	d := New(Config{Backend: b, Size: 1 << 20})
	conn := f.SocketPair()
	go func() {
		if err := d.Serve(context.Background(), conn); err != nil {
			tb.Error(err)
		}
	}()
	tb.Cleanup(d.Stop)
	f.Begin(0)
	return f
}

// A request costs no allocation, done at once or by a worker.
func TestRequestsDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates by itself: not counted")
		return
	}
	for _, c := range []struct {
		name   string
		trying bool
	}{{"at once", true}, {"by a worker", false}} {
		t.Run(c.name, func(t *testing.T) {
			f := beginWith(t, nothing{c.trying}, 16)
			s := f.Slot(0, 4096)
			chain := s.Chain(vhosttest.In, 0)
			use := func() {
				head := f.Add(chain...)
				f.Kick()
				if got, _ := f.Await(); got != head || s.Status() != vhosttest.OK {
					t.Fatalf("descriptor %d, status %d", got, s.Status())
				}
			}
			for range 64 {
				use()
			}
			const own = 2 // what Add allocates
			if n := testing.AllocsPerRun(500, use); n > own+0.5 {
				t.Errorf("%.1f allocations per request, %d of them the test's", n, own)
			}
		})
	}
}

func BenchmarkRequests(b *testing.B) {
	for _, depth := range []int{1, 32} {
		b.Run("depth="+itoa(int64(depth)), func(b *testing.B) {
			f := beginWith(b, nothing{true}, 128)
			var chains [][]vhosttest.Desc
			for i := range depth {
				chains = append(chains, f.Slot(i, 4096).Chain(vhosttest.In, 0))
			}
			b.ResetTimer()
			for n := 0; n < b.N; n += depth {
				for _, c := range chains {
					f.Add(c...)
				}
				f.Kick()
				for range depth {
					f.Await()
				}
			}
		})
	}
}
