package sealedkeys

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"

	"drover"
)

// memory is a store in memory that can be cut at any operation, before or after it has had its effect.
type memory struct {
	mu      sync.Mutex
	rev     uint64
	records map[string]stored
	// left is how many operations go through until the power goes out; negative for all. after: the last one has its effect.
	left  int
	after bool
	out   bool
	// before runs before the operation with the number at, once.
	ops, at int
	before  func()
}

type stored struct {
	data []byte
	rev  uint64
}

var errPower = drover.Errorf(drover.Unavailable, "the power is out")

func newMemory() *memory { return &memory{records: map[string]stored{}, left: -1} }

// step does one operation.
func (m *memory) step(do func() error) error {
	m.mu.Lock()
	m.ops++
	run := m.before
	if run != nil && m.ops == m.at {
		m.before = nil
		m.mu.Unlock()
		run()
		m.mu.Lock()
	}
	defer m.mu.Unlock()
	if m.out {
		return errPower
	}
	if m.left == 0 {
		m.out = true
		if m.after {
			_ = do() // nobody hears of it
		}
		return errPower
	}
	m.left--
	return do()
}

func (m *memory) Get(_ context.Context, key string) (r Record, rev uint64, err error) {
	err = m.step(func() error {
		s, ok := m.records[key]
		if !ok {
			return drover.Errorf(drover.NotFound, "no record %s", key)
		}
		rev = s.rev
		return json.Unmarshal(s.data, &r)
	})
	return r, rev, err
}

func (m *memory) put(key string, r Record) (uint64, error) {
	data, err := json.Marshal(r)
	m.rev++
	m.records[key] = stored{data, m.rev}
	return m.rev, err
}

func (m *memory) Create(_ context.Context, key string, r Record) (rev uint64, err error) {
	err = m.step(func() error {
		if _, ok := m.records[key]; ok {
			return drover.Errorf(drover.Exists, "%s exists", key)
		}
		rev, err = m.put(key, r)
		return err
	})
	return rev, err
}

func (m *memory) Update(_ context.Context, key string, r Record, old uint64) (rev uint64, err error) {
	err = m.step(func() error {
		if m.records[key].rev != old || old == 0 {
			return drover.Errorf(drover.Conflict, "%s has another revision", key)
		}
		rev, err = m.put(key, r)
		return err
	})
	return rev, err
}

func (m *memory) Delete(_ context.Context, key string, old uint64) error {
	return m.step(func() error {
		if m.records[key].rev != old {
			return drover.Errorf(drover.Conflict, "%s has another revision", key)
		}
		delete(m.records, key)
		return nil
	})
}

func (m *memory) Keys(context.Context) (keys []string, err error) {
	err = m.step(func() error {
		keys = slices.Sorted(maps.Keys(m.records))
		return nil
	})
	return keys, err
}

// powerOn lets the store answer again.
func (m *memory) powerOn() { m.out, m.left = false, -1 }
