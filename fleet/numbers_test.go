package fleet

import (
	"slices"
	"sync"
	"testing"
)

// Numbers that many ask for at once, on two control hosts, are all different and leave none out.
func TestNoNumberIsGivenTwice(t *testing.T) {
	t.Parallel()
	w, one := newWorld(t)
	two := w.control("c2", nil)
	if err := two.await(t.Context()); err != nil {
		t.Fatal(err)
	}
	const each = 100
	var mu sync.Mutex
	var all []uint64
	var group sync.WaitGroup
	for _, n := range []*node{one, two} {
		for range each {
			group.Go(func() {
				number, err := n.nextNumber(t.Context(), "things")
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				all = append(all, number)
			})
		}
	}
	group.Wait()
	slices.Sort(all)
	for i, number := range all {
		if number != uint64(i+1) {
			t.Fatalf("%d numbers: %v", len(all), all)
		}
	}
	if len(all) != 2*each {
		t.Errorf("%d numbers", len(all))
	}
}
