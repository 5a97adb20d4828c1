package host

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"drover"
)

// brief writes conditions so that they can be compared.
func brief(all []drover.Condition) string {
	var out []string
	for _, c := range all {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", c.Severity, c.Code, c.Subject)))
	}
	return strings.Join(out, ", ")
}

// look is one look of the host, on its own.
func look(total, free drover.Bytes, layers []drover.LayerStatus, since map[conditionKey]time.Time, now time.Time) ([]drover.Condition, map[conditionKey]time.Time) {
	all := poolFindings(total, free, drover.PoolFloor(total, 0), since)
	for _, l := range layers {
		all = append(all, layerFindings(l)...)
	}
	since = sinceWhen(all, since, now)
	return visible(all, since, now), since
}

// A pool's conditions come at 80 and 90 per cent, after a while, and go a little below.
func TestPoolConditionsHaveABand(t *testing.T) {
	now, since := time.Unix(1e9, 0), map[conditionKey]time.Time(nil)
	for _, c := range []struct {
		used int // per cent
		want string
	}{
		{79, ""}, {80, "warning pool-filling"}, {78, "warning pool-filling"}, {76, ""}, {79, ""}, {89, "warning pool-filling"},
		{90, "critical pool-filling"}, {88, "critical pool-filling"}, {86, "warning pool-filling"}, {89, "warning pool-filling"},
		{99, "critical pool-filling"}, {100, "critical pool-filling, critical pool-full"}, {50, ""},
	} {
		var shown []drover.Condition
		for range 3 { // it is so for a while
			shown, since = look(100*drover.GiB, drover.Bytes(100-c.used)*drover.GiB, nil, since, now)
			now = now.Add(10 * time.Second)
		}
		if got := brief(shown); got != c.want {
			t.Errorf("at %d %%: %q, want %q", c.used, got, c.want)
		}
	}
}

func TestLayerConditions(t *testing.T) {
	layers := []drover.LayerStatus{
		{ID: "vol_1", Disk: "vol_1", Hydration: &drover.Hydration{Stalled: true, Waiting: "parent h2: no answer"}},
		{ID: "vol_2.m", Disk: "vol_2", Trouble: "its record is damaged"},
		{ID: "root_3", Disk: "root_3", Verification: &drover.Verification{Damaged: []drover.ByteRange{{Offset: 4096, Length: 4096}}}},
		{ID: "vol_4.vs_1", Disk: "vol_4", Upload: &drover.Upload{Snapshot: "vs_1", Waiting: "the store does not answer"}},
		{ID: "vol_5", Disk: "vol_5", Hydration: &drover.Hydration{Stalled: true, Done: true}, Upload: &drover.Upload{Done: true, Waiting: "x"}},
		{ID: "vol_6", Disk: "vol_6", Hydration: &drover.Hydration{Stalled: true, Paused: true}, Verification: &drover.Verification{Done: true}},
		{ID: "vol_2.n", Disk: "vol_2", Trouble: "another layer of the same volume"},
		{ID: "broken", Trouble: "no record"},
	}
	now := time.Unix(1e9, 0)
	shown, since := look(0, 0, layers, nil, now)
	want := "critical layer-damaged root_3, critical layer-refused broken, critical layer-refused vol_2, warning hydration-stalled vol_1"
	sorted := func(all []drover.Condition) string {
		parts := strings.Split(brief(all), ", ")
		slices.Sort(parts)
		return strings.Join(parts, ", ")
	}
	if got := sorted(shown); got != want {
		t.Errorf("at once: %s", got)
	}
	later, since := look(0, 0, layers, since, now.Add(2*time.Minute))
	if got := sorted(later); got != want+", warning snapshot-failing vs_1" {
		t.Errorf("after two minutes: %s", got)
	}
	for _, c := range later {
		if !c.Since.Equal(now) {
			t.Errorf("%s is there since %s", c.Code, c.Since)
		}
		if c.Code == drover.LayerRefused && c.Subject == "vol_2" && !strings.Contains(c.Text, "layer vol_2.m: its record is damaged") {
			t.Errorf("text %q", c.Text)
		}
	}
	if gone, since := look(0, 0, nil, since, now.Add(3*time.Minute)); len(gone) != 0 || len(since) != 0 {
		t.Errorf("still there: %v %v", gone, since)
	}
}

// TestEveryConditionHasItsPage: what to do stands in docs/CONDITIONS.md, for each that is declared, and for no other.
func TestEveryConditionHasItsPage(t *testing.T) {
	page, err := os.ReadFile("../docs/CONDITIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]string{}
	for _, part := range strings.Split(string(page), "\n## ")[1:] {
		code, text, _ := strings.Cut(part, "\n")
		parts[code] = text
	}
	declared := map[string]bool{}
	for _, k := range conditionKinds() {
		declared[string(k.code)] = true
		text := strings.ToLower(parts[string(k.code)])
		if !strings.Contains(text, "what to do:") || !strings.Contains(text, string(k.severity)) {
			t.Errorf("%s (%s) has no part that says how bad it is and what to do", k.code, k.severity)
		}
	}
	for code, severity := range drover.ControlConditions() {
		declared[string(code)] = true
		text := strings.ToLower(parts[string(code)])
		if !strings.Contains(text, "what to do:") || !strings.Contains(text, string(severity)) {
			t.Errorf("%s (%s) has no part that says how bad it is and what to do", code, severity)
		}
	}
	for code := range parts {
		if !declared[code] {
			t.Errorf("%s has a part, and is not declared", code)
		}
	}
	for _, code := range []drover.ConditionCode{drover.PoolFilling, drover.PoolFull, drover.HydrationStalled, drover.LayerDamaged, drover.LayerRefused,
		drover.KeyMissing, drover.SnapshotFailing} {
		if !declared[string(code)] {
			t.Errorf("%s is a code, and is not declared", code)
		}
	}
}

// A host tells of its conditions, since when they are there, and goes on with that after a restart of its agent.
func TestHostTellsOfItsConditions(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"]
		h.up(0)
		pass(time.Minute)
		info := func() drover.HostInfo { return insist[drover.HostInfo](h, drover.OrderInfo, drover.Empty{}) }
		if got := brief(info().Conditions); got != "" {
			t.Errorf("a host that is well tells of %s", got)
		}
		w.mu.Lock()
		h.free = 10 * drover.GiB // of 200
		h.layers["vol_x"] = &fakeLayer{status: drover.LayerStatus{ID: "vol_x", Disk: "vol_x", Trouble: "its record is damaged"}}
		h.layers["vol_y"] = &fakeLayer{status: drover.LayerStatus{ID: "vol_y", Disk: "vol_y", Cipher: &drover.Cipher{Key: "key_1"}}}
		w.mu.Unlock()
		begun := time.Now()
		pass(time.Minute)
		h.agent.noteKey("key_1", drover.Errorf(drover.Unavailable, "the control hosts do not answer"))
		pass(time.Minute)
		before := info().Conditions
		if got := brief(before); got != "critical key-missing key_1, critical layer-refused vol_x, critical pool-filling" {
			t.Errorf("told %s", got)
		}
		h.agent.noteKey("key_1", nil)
		pass(time.Minute)
		h.agent.noteKey("key_1", drover.Errorf(drover.Unavailable, "the control hosts do not answer"))
		w.mu.Lock()
		delete(h.layers, "vol_y")
		w.mu.Unlock()
		pass(time.Minute)
		if got := brief(info().Conditions); got != "critical layer-refused vol_x, critical pool-filling" {
			t.Errorf("a key that no layer needs any more: told %s", got)
		}
		h.down()
		pass(time.Hour)
		h.up(0)
		pass(time.Minute)
		after := info().Conditions
		if got := brief(after); got != "critical layer-refused vol_x, critical pool-filling" {
			t.Errorf("after a restart %s", got)
		}
		for _, c := range after {
			if c.Since.Sub(begun) > watchEvery || c.Since.Before(begun) {
				t.Errorf("%s is there since %s, it began at %s", c.Code, c.Since, begun)
			}
		}
		w.mu.Lock()
		h.free = 150 * drover.GiB
		delete(h.layers, "vol_x")
		w.mu.Unlock()
		pass(time.Minute)
		if got := brief(info().Conditions); got != "" {
			t.Errorf("what is over is still told: %s", got)
		}
	})
}
