package host

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"drover"
)

// probe is the trial of the host's disk.
func (h *fakeHost) probe() error {
	h.w.mu.Lock()
	hangs, fails := h.hangs, h.fails
	h.w.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
	return fails
}

// A host whose disk hangs answers as if nothing were the matter: it says so itself, and takes nothing new.
func TestADiskThatHangsOrFailsIsToldAndTakesNothingNew(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"]
		h.up(0)
		has := func(code drover.ConditionCode) bool {
			return slices.ContainsFunc(h.agent.conditions(), func(c drover.Condition) bool { return c.Code == code && c.Severity == drover.SeverityCritical })
		}
		reasons := func() string {
			o, err := order[drover.Offer](h, drover.OrderOffer, drover.OfferRequest{MemoryMB: 64, CPUs: 1})
			if err != nil {
				t.Fatal(err)
			}
			return strings.Join(o.Reasons, "; ")
		}
		set := func(hangs chan struct{}, fails error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			h.hangs, h.fails = hangs, fails
		}
		pass(diskStall)
		if has(drover.DiskStalled) || has(drover.DiskFailing) || reasons() != "" {
			t.Fatalf("a good disk: %+v, %s", h.agent.conditions(), reasons())
		}
		hangs := make(chan struct{})
		set(hangs, nil)
		pass(diskStall / 2)
		if has(drover.DiskStalled) {
			t.Error("a disk that is busy hangs")
		}
		pass(diskStall)
		if !has(drover.DiskStalled) || !strings.Contains(reasons(), "the disk hangs") {
			t.Errorf("%+v, %s", h.agent.conditions(), reasons())
		}
		set(nil, errors.New("input/output error"))
		close(hangs)
		pass(3 * diskEvery)
		if has(drover.DiskStalled) || !has(drover.DiskFailing) || !strings.Contains(reasons(), "input/output error") {
			t.Errorf("%+v, %s", h.agent.conditions(), reasons())
		}
		set(nil, nil)
		pass(3 * diskEvery)
		if len(h.agent.conditions()) > 0 || reasons() != "" {
			t.Errorf("%+v, %s", h.agent.conditions(), reasons())
		}
	})
}

func TestTheTrialOfADisk(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		if err := probeDisk(dir); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, diskProbeFile)); err != nil || st.Size() != int64(diskProbeSize) {
		t.Errorf("%v, %v", st, err)
	}
	if err := probeDisk(filepath.Join(dir, "nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}
	if took := (&diskTrial{begun: time.Now().Add(-time.Hour)}).findings(time.Now()); len(took) != 1 || !strings.Contains(took[0].text, "1h0m0s") {
		t.Errorf("%+v", took)
	}
}
