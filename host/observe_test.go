package host

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"drover"
)

func workers(n int) (list []drover.HostInfo) {
	for i := range n {
		list = append(list, drover.HostInfo{ID: drover.HostID(fmt.Sprintf("h%d", i)), Roles: []drover.Role{drover.RoleWorker}, StorageAddress: "x:1"})
	}
	return list
}

func TestEveryHostHasItsObservers(t *testing.T) {
	for n := range 40 {
		list := workers(n)
		count := map[drover.HostID]int{}
		for _, h := range list {
			mine := fellowsOf(list, h.ID)
			for _, o := range mine {
				if o.ID == h.ID {
					t.Fatalf("%s observes itself", h.ID)
				}
				count[o.ID]++
			}
		}
		for _, h := range list {
			if want := min(observersPerHost, n-1); count[h.ID] != want {
				t.Errorf("of %d hosts %d observe %s, want %d", n, count[h.ID], h.ID, want)
			}
		}
	}
	if got := fellowsOf([]drover.HostInfo{{ID: "c1", Roles: []drover.Role{drover.RoleControl}}}, "h1"); len(got) != 0 {
		t.Errorf("hosts without storage are observed: %v", got)
	}
}

func TestAHostCountsAsNotReachedAfterTheSecondFailure(t *testing.T) {
	var o observer
	list := workers(2)
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	no := errors.New("refused")
	for i, step := range []struct {
		err     error
		reached bool
		since   int
	}{{nil, true, 0}, {no, true, 0}, {nil, true, 0}, {no, true, 0}, {no, false, 4}, {no, false, 4}, {nil, true, 6}} {
		o.note(list[:1], []error{step.err}, at(i))
		if s := o.seen["h0"]; s.Reached != step.reached || !s.Since.Equal(at(step.since)) || s.Reached == (s.Problem != "") {
			t.Errorf("after %d tries: %+v, want %+v", i+1, s, step)
		}
	}
	o.note(list[1:], []error{no}, at(9))
	if _, kept := o.seen["h0"]; kept || o.seen["h1"].Reached {
		t.Errorf("a new host that is not reached at once, an old one forgotten: %+v", o.seen)
	}
}
