package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"drover"
)

// bound is how long the suite waits for one thing.
const bound = 60 * time.Second

// Run checks everything that drover.ObjectStore promises. open returns an empty store; many is more objects than the store lists at once.
func Run(t *testing.T, many int, open func(t *testing.T) drover.ObjectStore) {
	lists := func(t *testing.T, ctx context.Context, s drover.ObjectStore) { lists(t, ctx, s, many) }
	for name, check := range map[string]func(*testing.T, context.Context, drover.ObjectStore){
		"what was put is there": putGet, "names": names, "lists": lists, "deletes": deletes, "large objects": large,
		"many at once": concurrent, "a context that ends": canceled,
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), bound)
			defer cancel()
			check(t, ctx, open(t))
		})
	}
}

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code drover.Code) {
	t.Helper()
	var e *drover.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("the error is %v, want code %s", err, code)
	}
}

func wantObject(t *testing.T, ctx context.Context, s drover.ObjectStore, name string, want []byte) {
	t.Helper()
	got, err := s.Get(ctx, name)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatalf("%s has %d bytes that are not the %d that were put", name, len(got), len(want))
	}
	there, err := s.Has(ctx, name)
	must(t, err)
	if !there {
		t.Fatalf("%s can be read and is not there", name)
	}
}

func wantNothing(t *testing.T, ctx context.Context, s drover.ObjectStore, name string) {
	t.Helper()
	_, err := s.Get(ctx, name)
	wantCode(t, err, drover.NotFound)
	there, err := s.Has(ctx, name)
	must(t, err)
	if there {
		t.Fatalf("%s is there", name)
	}
}

func putGet(t *testing.T, ctx context.Context, s drover.ObjectStore) {
	wantNothing(t, ctx, s, "a")
	for i, n := range []int{0, 1, 4096, 1<<20 + 1} {
		name := fmt.Sprintf("a/%d", i)
		must(t, s.Put(ctx, name, noise(byte(i), n)))
		wantObject(t, ctx, s, name, noise(byte(i), n))
		must(t, s.Put(ctx, name, noise(byte(i), n))) // again
		wantObject(t, ctx, s, name, noise(byte(i), n))
	}
	wantNothing(t, ctx, s, "a/9")
}

func names(t *testing.T, ctx context.Context, s drover.ObjectStore) {
	good := []string{"x", "A.b-c_d", "volumes/vol_1/chunks/" + strings.Repeat("ab", 32), "v/.hidden", "v/a..b", strings.Repeat("n", 200)}
	for i, name := range good {
		must(t, s.Put(ctx, name, []byte{byte(i)}))
	}
	for i, name := range good {
		wantObject(t, ctx, s, name, []byte{byte(i)})
	}
	for _, name := range []string{"", "/x", "x/", "a//b", "a b", "a/../b", "..", "a/.", "ü", "a\x00", "a*", "a>", strings.Repeat("n", 2000)} {
		wantCode(t, s.Put(ctx, name, nil), drover.Invalid)
		_, err := s.Get(ctx, name)
		wantCode(t, err, drover.Invalid)
	}
}

func list(t *testing.T, ctx context.Context, s drover.ObjectStore, prefix string) []string {
	t.Helper()
	got := []string{}
	must(t, s.List(ctx, prefix, func(name string, size drover.Bytes) error {
		got = append(got, fmt.Sprintf("%s %d", name, size))
		return nil
	}))
	slices.Sort(got)
	return got
}

func lists(t *testing.T, ctx context.Context, s drover.ObjectStore, many int) {
	if got := list(t, ctx, s, ""); len(got) != 0 {
		t.Fatalf("an empty store has %v", got)
	}
	var wg sync.WaitGroup
	for first := range 11 {
		wg.Go(func() {
			for i := first; i < many; i += 11 {
				if err := s.Put(ctx, fmt.Sprintf("v/one/%04d", i), noise(1, i%3)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, name := range []string{"v/two/x", "v/twofold", "w"} {
		must(t, s.Put(ctx, name, []byte("abcd")))
	}
	if got := list(t, ctx, s, ""); len(got) != many+3 {
		t.Errorf("all are %d", len(got))
	}
	got := list(t, ctx, s, "v/one/")
	if len(got) != many || got[0] != "v/one/0000 0" || got[many-1] != fmt.Sprintf("v/one/%04d %d", many-1, (many-1)%3) {
		t.Errorf("v/one/ has %d: %s to %s", len(got), got[0], got[len(got)-1])
	}
	if got := list(t, ctx, s, "v/two"); !slices.Equal(got, []string{"v/two/x 4", "v/twofold 4"}) {
		t.Errorf("v/two has %v", got)
	}
	if got := list(t, ctx, s, "v/one/000"); len(got) != 10 {
		t.Errorf("v/one/000 has %v", got)
	}
	if got := list(t, ctx, s, "nothing/"); len(got) != 0 {
		t.Errorf("nothing/ has %v", got)
	}
	stop, calls := errors.New("stop"), 0
	if err := s.List(ctx, "v/", func(string, drover.Bytes) error { calls++; return stop }); !errors.Is(err, stop) || calls != 1 {
		t.Errorf("a list that was ended went on: %d calls, %v", calls, err)
	}
}

func deletes(t *testing.T, ctx context.Context, s drover.ObjectStore) {
	must(t, s.Put(ctx, "v/a", []byte("1")))
	must(t, s.Put(ctx, "v/b", []byte("2")))
	must(t, s.Delete(ctx, "v/a"))
	wantNothing(t, ctx, s, "v/a")
	wantObject(t, ctx, s, "v/b", []byte("2"))
	if got := list(t, ctx, s, "v/"); !slices.Equal(got, []string{"v/b 1"}) {
		t.Errorf("after a deletion: %v", got)
	}
	must(t, s.Delete(ctx, "v/a"))
	must(t, s.Delete(ctx, "never/there"))
	must(t, s.Put(ctx, "v/a", []byte("3")))
	wantObject(t, ctx, s, "v/a", []byte("3"))
}

func large(t *testing.T, ctx context.Context, s drover.ObjectStore) {
	b := noise(3, 20<<20+7)
	must(t, s.Put(ctx, "large", b))
	wantObject(t, ctx, s, "large", b)
	if got := list(t, ctx, s, "large"); !slices.Equal(got, []string{fmt.Sprintf("large %d", len(b))}) {
		t.Error(got)
	}
	wantCode(t, s.Put(ctx, "larger", make([]byte, drover.MaxObject+1)), drover.Invalid)
}

func concurrent(t *testing.T, ctx context.Context, s drover.ObjectStore) {
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			b := noise(byte(i/2), 100_000) // two put the same at the same time
			name := fmt.Sprintf("c/%d", i/2)
			if err := s.Put(ctx, name, b); err != nil {
				t.Error(err)
				return
			}
			if got, err := s.Get(ctx, name); err != nil || !bytes.Equal(got, b) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	wg.Wait()
	if got := list(t, ctx, s, "c/"); len(got) != 8 {
		t.Errorf("there are %v", got)
	}
}

func canceled(t *testing.T, ctx context.Context, s drover.ObjectStore) {
	must(t, s.Put(ctx, "a", []byte("1")))
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err := s.Get(ended, "a")
	wantCode(t, err, drover.Canceled)
	wantCode(t, s.Put(ended, "b", []byte("2")), drover.Canceled)
	wantObject(t, ctx, s, "a", []byte("1"))
}
