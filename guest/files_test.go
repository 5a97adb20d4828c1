package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drover"
)

func TestConfigIsReadAsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.img")
	want := Config{Run: "r1", Hostname: "m1", Argv: []string{"/bin/sh", "-c", "true"}, Env: []string{"A=ä\n"}, User: "1:2",
		Volumes: []Volume{{Name: "vol_1", Path: "/data", MkFS: true}}, Network: Network{Address: "fdaa::1", User: true},
		Checks: map[string]drover.Check{"web": {Type: drover.CheckHTTP, Port: 80}}, BootDeadline: drover.Duration(time.Minute)}
	if err := WriteConfig(path, want); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Size()%sector != 0 || st.Mode().Perm() != 0o600 {
		t.Errorf("%d bytes, mode %v", st.Size(), st.Mode())
	}
	got, err := ReadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	want.Version = ConfigVersion
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestConfigIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.img")
	for name, cfg := range map[string]Config{
		"no command": {},
		"too large":  {Argv: []string{"x"}, Env: []string{strings.Repeat("x", maxConfig)}},
	} {
		if err := WriteConfig(path, cfg); !drover.Is(err, drover.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, data := range map[string]string{
		"blank": strings.Repeat("\x00", 1024), "noise": "{\"version\":", "newer": `{"version":2,"argv":["x"]}`,
		"none": `{"argv":["x"]}`, "no command": `{"version":1}`,
	} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadConfig(path); !drover.Is(err, drover.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// appendTo appends to a file as QEMU does.
func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func record(n int) string {
	return fmt.Sprintf(`{"t":%d,"s":"stdout","m":"line %d %s"}`+"\n", n, n, strings.Repeat("x", 200))
}

// number returns the number of a line that record made.
func number(t *testing.T, l drover.LogLine) int {
	t.Helper()
	var n int
	if _, err := fmt.Sscanf(l.Text, "line %d", &n); err != nil {
		t.Fatalf("line %+v: %v", l, err)
	}
	return n
}

func TestReadLogTakesWholeLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if lines, next, err := ReadLog(path, 0, 10, 1000); err != nil || lines != nil || next != 0 {
		t.Errorf("a log that does not exist: %v %d %v", lines, next, err)
	}
	appendTo(t, path, `{"t":5,"s":"stdout","m":"one"}`+"\n"+"damaged\n"+`{"t":6,"s":"stderr","m":"tw`)
	lines, next, err := ReadLog(path, 0, 10, 1000)
	if err != nil {
		t.Fatal(err)
	}
	want := []drover.LogLine{{At: time.Unix(0, 5).UTC(), Stream: "stdout", Text: "one"}, {Stream: "damaged", Text: "damaged"}}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	appendTo(t, path, "o\"}\n")
	lines, last, err := ReadLog(path, next, 10, 1000)
	if err != nil || len(lines) != 1 || lines[0].Text != "two" {
		t.Errorf("the rest: %v %v", lines, err)
	}
	if lines, next, err := ReadLog(path, last, 10, 1000); err != nil || lines != nil || next != last {
		t.Errorf("at the end: %v %d %v", lines, next, err)
	}
	if lines, _, err := ReadLog(path, last+1000, 10, 1000); err != nil || len(lines) != 3 {
		t.Errorf("past the end: %v %v", lines, err)
	}
	if lines, _, err := ReadLog(path, 0, 1, 1000); err != nil || len(lines) != 1 {
		t.Errorf("one line: %v %v", lines, err)
	}
}

func TestTailLogFindsTheLastLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if offset, err := TailLog(path, 5); err != nil || offset != 0 {
		t.Errorf("a log that does not exist: %d %v", offset, err)
	}
	for n := range 1000 {
		appendTo(t, path, record(n))
	}
	appendTo(t, path, `{"t":6,"s":"stderr","m":"not whole`)
	for _, tail := range []int{1, 2, 500, 999} {
		offset, err := TailLog(path, tail)
		if err != nil {
			t.Fatal(err)
		}
		lines, _, err := ReadLog(path, offset, 2000, 1<<20)
		if err != nil || len(lines) != tail || number(t, lines[0]) != 1000-tail {
			t.Errorf("tail %d: %d lines, %v", tail, len(lines), err)
		}
	}
	if offset, err := TailLog(path, 5000); err != nil || offset != 0 {
		t.Errorf("more than there are: %d %v", offset, err)
	}
}

func TestTrimLogKeepsOffsetsAndWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := TrimLog(path, LogKeep); err != nil {
		t.Errorf("a log that does not exist: %v", err)
	}
	for n := range 2000 {
		appendTo(t, path, record(n))
	}
	_, middle, err := ReadLog(path, 0, 1900, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	const keep = 100_000
	if err := TrimLog(path, keep); err != nil {
		t.Fatal(err)
	}
	appendTo(t, path, record(2000))
	lines, next, err := ReadLog(path, 0, 5000, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	first := number(t, lines[0])
	if kept := len(lines) * len(record(1000)); kept < keep || kept > keep+(64<<10) || first+len(lines) != 2001 {
		t.Errorf("lines %d to %d are left", first, first+len(lines)-1)
	}
	if lines, _, err = ReadLog(path, middle, 5000, 1<<20); err != nil || number(t, lines[0]) != 1900 {
		t.Errorf("an offset of before means another line now: %v", err)
	}
	offset, err := TailLog(path, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	if lines, _, err = ReadLog(path, offset, 5000, 1<<20); err != nil || number(t, lines[0]) != first {
		t.Errorf("tail of more than there is: %v", err)
	}
	if lines, _, err = ReadLog(path, next, 10, 1000); err != nil || lines != nil {
		t.Errorf("at the end: %v %v", lines, err)
	}
}

func TestTailStatusFollows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status")
	events := make(chan StatusEvent)
	offsets := make(chan int64)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- TailStatus(ctx, path, 0, func(ev StatusEvent, next int64) error {
			events <- ev
			offsets <- next
			return nil
		})
	}()
	line, err := json.Marshal(StatusEvent{T: 1, Run: "r", Event: EventStarted, PID: 7})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		appendTo(t, path, string(line[:10]))
		appendTo(t, path, string(line[10:])+"\n")
		if ev := <-events; ev.PID != 7 || ev.Event != EventStarted {
			t.Errorf("got %+v", ev)
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if next := <-offsets; next != st.Size() {
			t.Errorf("next is %d, the file has %d bytes", next, st.Size())
		}
	}
	appendTo(t, path, "noise\n")
	if ev := <-events; ev.Event != EventUnreadable || ev.Error != "noise" {
		t.Errorf("got %+v", ev)
	}
	<-offsets
	// A new file in its place is read from its beginning.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	appendTo(t, path, string(line)+"\n")
	if ev := <-events; ev.PID != 7 {
		t.Errorf("got %+v", ev)
	}
	<-offsets
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestParseSignal(t *testing.T) {
	for name, want := range map[string]int{"SIGTERM": 15, "term": 15, " 9 ": 9, "SIGHUP": 1, "Usr1": 10, "RTMIN": 34, "SIGRTMIN+3": 37, "SIGRTMAX-1": 63, "SIGRTMAX": 64} {
		if got, err := ParseSignal(name); err != nil || int(got) != want {
			t.Errorf("%q: %d %v", name, got, err)
		}
	}
	for _, name := range []string{"", "SIG", "SIGNONE", "0", "65", "-1", "SIGRTMIN+31", "SIGRTMAX+1", "SIGRTMIN-1"} {
		if _, err := ParseSignal(name); !drover.Is(err, drover.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
