package waterfall

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drover"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, file, got string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update writes it anew). Got:\n%s\nwant:\n%s", file, got, want)
	}
}

var begun = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return begun.Add(time.Duration(ms) * time.Millisecond) }

// moved is a migration that has come to an end; the tests take parts of it away.
func moved() drover.Migration {
	return drover.Migration{
		ID: "mig_6f1c0a53e9b2d784", Machine: "3d8d9c2b7e0a15", App: "ledger", Source: "h1", Target: "h2", Actor: "operator",
		Outcome: drover.Succeeded, Phase: drover.PhaseDone, WasRunning: true, CreatedAt: at(0), UpdatedAt: at(12950),
		Disks: []drover.DiskMove{{Disk: "root_3d8d9c2b7e0a15", Size: drover.GiB, Allocated: 12 * drover.MiB},
			{Disk: "vol_1", Volume: "vol_6f1c0a53e9b2d784", Size: 2 * drover.GiB, Allocated: 600 * drover.MiB}},
		Steps: []drover.Step{
			{Phase: drover.PhaseReserve, StartedAt: at(0), EndedAt: at(310), Tries: 1},
			{Phase: drover.PhaseExport, StartedAt: at(310), EndedAt: at(455), Tries: 2, Waited: "h2 did not answer for 90 ms",
				Waits: []drover.Wait{{From: at(330), Until: at(420), For: "h2 does not answer"}}},
			{Phase: drover.PhaseQuiesce, StartedAt: at(455), EndedAt: at(1655), Tries: 1},
			{Phase: drover.PhaseSwitch, StartedAt: at(1655), EndedAt: at(1702), Tries: 1},
			{Phase: drover.PhaseStart, StartedAt: at(1702), EndedAt: at(4670), Tries: 1, Bytes: 23 * drover.MiB},
			{Phase: drover.PhaseHydrate, StartedAt: at(4670), EndedAt: at(12950), Tries: 1, Bytes: 612 * drover.MiB,
				Waits: []drover.Wait{{From: at(6000), Until: at(9000), For: "parent h1 is away"}}},
			{Phase: drover.PhaseDone, StartedAt: at(12950), EndedAt: at(12950), Tries: 1},
		},
		StoppedAt: at(455), RunningAt: at(4670),
	}
}

// drained is what a drain leaves: three migrations one after the other, one of them still going on.
func drained() []drover.Migration {
	later := func(m drover.Migration, id drover.MigrationID, machine drover.MachineID, by time.Duration) drover.Migration {
		m.ID, m.Machine, m.Steps = id, machine, append([]drover.Step(nil), m.Steps...)
		for i := range m.Steps {
			s := &m.Steps[i]
			s.StartedAt, s.EndedAt, s.Waits = s.StartedAt.Add(by), s.EndedAt.Add(by), nil
		}
		m.StoppedAt, m.RunningAt = m.StoppedAt.Add(by), m.RunningAt.Add(by)
		return m
	}
	second, third := later(moved(), "mig_2", "3d8d9c2b7e0a16", 5*time.Second), later(moved(), "mig_3", "3d8d9c2b7e0a17", 9*time.Second)
	third.Outcome, third.Phase, third.Steps, third.RunningAt = drover.Running, drover.PhaseStart, third.Steps[:5], time.Time{}
	third.Steps[4].EndedAt, third.Steps[4].Tries, third.Steps[4].Waited = time.Time{}, 7, "h2 does not answer"
	return []drover.Migration{moved(), second, third}
}

func TestOne(t *testing.T) {
	golden(t, "one.txt", Text(Of(moved(), at(60_000)), 100))
	golden(t, "one.svg", SVG(Of(moved(), at(60_000))))
	running := drained()[2]
	golden(t, "running.txt", Text(Of(running, at(20_000)), 100))
	golden(t, "running.svg", SVG(Of(running, at(20_000))))
}

// TestAMachineThatDidNotComeToRunIsSaid: a move that ended well, with a machine that did not start, is not drawn as one without an interruption.
func TestAMachineThatDidNotComeToRunIsSaid(t *testing.T) {
	m := moved()
	m.RunningAt = time.Time{}
	one := Of(m, at(60_000))
	if c := one.Interrupted; c == nil || !c.GoesOn || c.End != 12950*time.Millisecond || !strings.Contains(Text(one, 80), "had not come to run again") {
		t.Errorf("%+v\n%s", c, Text(one, 80))
	}
	wellFormed(t, SVG(one))
	m.Outcome = drover.Aborted
	if c := Of(m, at(60_000)); c.Interrupted != nil || len(c.Foot) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestMany(t *testing.T) {
	c := OfMany("Moves of the last day", drained(), at(20_000))
	golden(t, "many.txt", Text(c, 120))
	golden(t, "many.svg", SVG(c))
	golden(t, "none.txt", Text(OfMany("Moves of the last day", nil, at(0)), 120))
	golden(t, "none.svg", SVG(OfMany("Moves of the last day", nil, at(0))))
}

func TestGoldenTextIsPlain(t *testing.T) {
	files, err := filepath.Glob("testdata/*.*")
	if err != nil || len(files) < 8 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range data {
			if b != '\n' && (b < ' ' || b > '~') {
				t.Fatalf("%s has the byte %q", file, b)
			}
		}
	}
}

// wellFormed reads a drawing as XML and returns its text.
func wellFormed(t *testing.T, svg string) string {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(svg))
	d.Strict = true
	var text bytes.Buffer
	depth := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not XML: %v\n%s", err, svg)
		}
		switch token := token.(type) {
		case xml.StartElement:
			depth++
			if name := token.Name.Local; name == "script" || name == "foreignObject" || name == "a" || name == "image" {
				t.Fatalf("the drawing has an element %s", name)
			}
		case xml.EndElement:
			depth--
		case xml.CharData:
			text.Write(token)
		}
	}
	if depth != 0 {
		t.Fatalf("elements are not closed: %d", depth)
	}
	return text.String()
}

func TestTextIsEscaped(t *testing.T) {
	m := moved()
	m.App, m.Machine = `</text><script>alert("1")</script>`, "a&b<c>\x01\x00"
	m.Problem = drover.Errorf(drover.Internal, "%s", `"]]><!--`)
	m.Steps[0].Waited = strings.Repeat("<&>", 1000)
	m.Steps[2].Phase = `x"/><script/>`
	for _, c := range []Chart{Of(m, at(60_000)), OfMany("<b>", []drover.Migration{m}, at(60_000))} {
		if text := wellFormed(t, SVG(c)); !strings.Contains(text, string(m.App)) || !strings.Contains(text, "a&b<c>") {
			t.Error("the text is lost")
		}
	}
}

// TestDrawingSaysAllInWords: who sees no bars finds every phase and the interruption in the description.
func TestDrawingSaysAllInWords(t *testing.T) {
	svg := SVG(Of(moved(), at(60_000)))
	_, desc, _ := strings.Cut(svg, "<desc")
	desc, _, _ = strings.Cut(desc, "</desc>")
	for _, want := range []string{"quiesce 1.20 s, from 12:00:00.455 to 12:00:01.655 UTC", "interrupted 4.21 s", "612 MiB", "waited: h2 did not answer", "tries: 2"} {
		if !strings.Contains(desc, want) {
			t.Errorf("%q is not in %s", want, desc)
		}
	}
}

// FuzzCharts draws records whose times make no sense: no time at all, clocks that go back, ends before begins, far away years.
func FuzzCharts(f *testing.F) {
	f.Add(int64(0), int64(310), int64(310), int64(0), int64(455), int64(-1), int64(60_000), "h2", 80)
	f.Add(int64(-1), int64(-1), int64(-1), int64(-1), int64(-1), int64(-1), int64(-1), "", 0)
	f.Add(int64(1<<62), int64(-1<<62), int64(5), int64(-5), int64(1), int64(-2), int64(0), "<\x00>", -7)
	f.Fuzz(func(t *testing.T, a, b, c, d, stopped, running, now int64, text string, width int) {
		when := func(ms int64) time.Time {
			if ms == -1 {
				return time.Time{}
			}
			return time.UnixMilli(begun.UnixMilli() + ms)
		}
		m := drover.Migration{ID: drover.MigrationID(text), Machine: "m", Outcome: drover.Running, Phase: drover.Phase(text), StoppedAt: when(stopped), RunningAt: when(running),
			CreatedAt: when(d), Steps: []drover.Step{
				{Phase: drover.PhaseReserve, StartedAt: when(a), EndedAt: when(b), Waited: text, Waits: []drover.Wait{{From: when(c), Until: when(d)}}},
				{Phase: drover.Phase(text), StartedAt: when(c), EndedAt: when(d), Bytes: drover.Bytes(a), Tries: int(b)}}}
		width = min(width, 500)
		for _, chart := range []Chart{Of(m, when(now)), OfMany(text, []drover.Migration{m, moved(), {}}, when(now))} {
			for _, r := range chart.Rows {
				for _, bar := range r.Bars {
					if bar.Begin < 0 || bar.End < bar.Begin || bar.End > chart.axis.total {
						t.Fatalf("%+v is not on the axis of %v", bar, chart.axis.total)
					}
				}
			}
			if Text(chart, width) == "" {
				t.Fatal("nothing was drawn")
			}
			wellFormed(t, SVG(chart))
		}
		m.Outcome = drover.Aborted
		for _, span := range Trace(m, text) {
			if span.End.Before(span.Start) || span.Start.Before(time.Unix(0, 0)) || len(span.ID) != 16 || len(span.Trace) != 32 {
				t.Fatalf("%+v", span)
			}
		}
		m.Outcome = drover.Running
		s := Phases([]drover.Migration{m, moved(), {}}, Filter{Since: time.Hour}, when(now))
		for _, p := range s.Phases {
			if p.MaxMS < 0 || p.P50MS > p.P95MS || p.P95MS > p.MaxMS || p.TotalMS < p.MaxMS || p.SharePercent < 0 || p.SharePercent > 100 {
				t.Fatalf("%+v", p)
			}
		}
	})
}
