package fleet

import (
	"sync"
	"time"

	"drover"
)

// maxTellings bounds how many machines are remembered. When there are more, all start anew: a host is then told once more than it need be.
const maxTellings = 200_000

// tellings remembers what hosts were told of machines by this process, and what they are being told just now. A change of a machine's record wakes the
// repair as well as being told by whoever makes it; without this every change would be told twice.
type tellings struct {
	mu   sync.Mutex
	told map[drover.MachineID]telling
	// held are machines whose host is being told, or is about to be, by a request; true when the repair has passed over it meanwhile.
	held map[drover.MachineID]bool
}

// telling is what a host was told of a machine: which revisions, and when.
type telling struct {
	machine, placement uint64
	at                 time.Time
}

func newTellings() *tellings {
	return &tellings{told: map[drover.MachineID]telling{}, held: map[drover.MachineID]bool{}}
}

// note remembers that a host is told, or was.
func (t *tellings) note(id drover.MachineID, what telling) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.told) >= maxTellings {
		clear(t.told)
	}
	t.told[id] = what
}

func (t *tellings) forget(id drover.MachineID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.told, id)
}

// last returns what the host was told last. held says that somebody is at it, who has the repair look again afterwards.
func (t *tellings) last(id drover.MachineID) (what telling, held bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, held = t.held[id]; held {
		t.held[id] = true
	}
	return t.told[id], held
}

// tellsFirst keeps the repair off a machine until the function that it returns is called. It is for the maker of a machine, who tells its host.
func (f *Fleet) tellsFirst(id drover.MachineID) (release func()) {
	t := f.tellings
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held[id] = false
	return func() {
		t.mu.Lock()
		passed := t.held[id]
		delete(t.held, id)
		t.mu.Unlock()
		if passed {
			f.kicks.add(id)
		}
	}
}
