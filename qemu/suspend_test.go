package qemu

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"drover"
)

// counting counts in memory, and shows that it does; it writes what it counts on its volume.
const counting = `
n=0
while :; do
	n=$((n+1)); echo "count $n."
	sleep 0.1
done
`

// lastCount is the newest number that the guest has shown, and how many numbers it has left out or shown twice.
func (m *machine) lastCount(t *testing.T) (last, wrong int) {
	t.Helper()
	for line := range strings.Lines(m.console(t)) {
		text, ok := strings.CutPrefix(strings.TrimSpace(line), "count ")
		n, err := strconv.Atoi(strings.TrimSuffix(text, "."))
		if !ok || err != nil {
			continue
		}
		if n != last+1 {
			wrong++
		}
		last = n
	}
	return last, wrong
}

// A guest that was suspended counts on in another VM, also when a first try was cut, and when it has come from such an image itself.
func TestSuspendedGuestGoesOn(t *testing.T) {
	m := newMachine(t, runDir(t), testID, counting)
	d := newDriver(t, runDir(t))
	vm := start(t, d, m)
	m.waitConsole(t, "count 3.")
	if why, err := vm.SaveBlocker(t.Context()); err != nil || why != "" {
		t.Fatalf("it cannot be suspended: %s %v", why, err)
	}
	full := errors.New("no room")
	if err := vm.Save(t.Context(), &limited{left: 10 << 20, err: full}); !errors.Is(err, full) {
		t.Fatalf("a state that nobody takes: %v", err)
	}
	if err := vm.TakeBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	at, _ := m.lastCount(t)
	m.waitConsole(t, "count "+strconv.Itoa(at+3)+".")

	spec := m.spec
	spec.Incoming = true
	for round := range 2 {
		var image bytes.Buffer
		for range 2 - round { // what an agent has begun that died is begun anew by the next
			image.Reset()
			begin := time.Now()
			if err := vm.Save(t.Context(), &image); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d bytes in %s", image.Len(), time.Since(begin))
		}
		if now, err := vm.Transfer(t.Context()); err != nil || now.Running {
			t.Errorf("after its suspension: %+v %v", now, err)
		}
		at, _ := m.lastCount(t)
		if err := vm.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		next, err := d.Start(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := next.Load(t.Context(), &image); err != nil {
			t.Fatal(err)
		}
		if now, err := next.Transfer(t.Context()); err != nil || now.Running {
			t.Errorf("before it is let go: %+v %v", now, err)
		}
		if err := next.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("resumed in %s", time.Since(begin))
		m.waitConsole(t, "count "+strconv.Itoa(at+3)+".")
		if _, wrong := m.lastCount(t); wrong != 0 {
			t.Errorf("it counted wrong:\n%s", m.console(t))
		}
		vm = next
	}
}

// A state that was cut short, or is not one, is refused for good, and said so.
func TestABrokenStateIsRefused(t *testing.T) {
	m := newMachine(t, runDir(t), testID, counting)
	d := newDriver(t, runDir(t))
	vm := start(t, d, m)
	m.waitConsole(t, "count 3.")
	var image bytes.Buffer
	if err := vm.Save(t.Context(), &image); err != nil {
		t.Fatal(err)
	}
	if err := vm.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	at, _ := m.lastCount(t)
	spec := m.spec
	spec.Incoming = true
	lost := errors.New("the disk is away")
	for name, c := range map[string]struct {
		r    interface{ Read([]byte) (int, error) }
		code drover.Code
		err  error
	}{
		"cut":     {bytes.NewReader(image.Bytes()[:image.Len()*3/4]), drover.Precondition, nil},
		"garbage": {strings.NewReader(strings.Repeat("no state at all ", 1000)), drover.Precondition, nil},
		"away":    {&failing{err: lost}, "", lost},
	} {
		next, err := d.Start(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		err = next.Load(t.Context(), c.r)
		if c.err != nil && !errors.Is(err, c.err) || c.err == nil && !drover.Is(err, c.code) {
			t.Errorf("%s: %v", name, err)
		}
		if err := next.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n, _ := m.lastCount(t); n != at {
		t.Errorf("it executed: %d, then %d", at, n)
	}
	if _, err := os.Stat(filepath.Join(d.cfg.RunDir, string(testID))); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
}

// limited takes so much and no more.
type limited struct {
	left int
	err  error
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, l.err
	}
	return len(p), nil
}

// failing breaks off.
type failing struct{ err error }

func (f *failing) Read(p []byte) (int, error) { return 0, f.err }
