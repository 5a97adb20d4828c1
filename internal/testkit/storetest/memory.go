package storetest

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"

	"drover"
)

// Memory is an object store in memory with knobs. The fields may be changed while it is used, under Change.
type Memory struct {
	mu      sync.Mutex
	objects map[string][]byte
	knobs   Knobs
	counts  Counts
}

// Knobs make a store misbehave. Nil functions and zero values mean that it does not.
type Knobs struct {
	// Fail is asked before each operation ("put", "get", "has", "list", "delete"); what it returns is the answer.
	Fail func(op, name string) error
	// Forget: an object that was put successfully is not there.
	Forget func(name string) bool
	// Flip: a bit of what Get returns is wrong.
	Flip func(name string) bool
	// Gate holds each operation until it is closed, or the context ends.
	Gate func(op, name string) <-chan struct{}
}

// Counts is how often each operation succeeded, and the bytes that went each way.
type Counts struct {
	Puts, Gets, Has, Lists, Deletes int
	PutBytes, GetBytes              drover.Bytes
	// Twice counts puts of an object that was there already.
	Twice int
}

var _ drover.ObjectStore = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{objects: map[string][]byte{}} }

// Change sets knobs.
func (m *Memory) Change(set func(*Knobs)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	set(&m.knobs)
}

// Count returns the counts and starts anew.
func (m *Memory) Count() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.counts
	m.counts = Counts{}
	return c
}

// Names lists what is there.
func (m *Memory) Names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.objects {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Spoil changes a stored object.
func (m *Memory) Spoil(name string, change func([]byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects[name] = change(bytes.Clone(m.objects[name]))
}

// begin does what every operation begins with.
func (m *Memory) begin(ctx context.Context, op, name string) error {
	if op != "list" {
		if err := drover.CheckObjectName(name); err != nil {
			return err
		}
	}
	m.mu.Lock()
	knobs := m.knobs
	m.mu.Unlock()
	if knobs.Gate != nil {
		if gate := knobs.Gate(op, name); gate != nil {
			select {
			case <-gate:
			case <-ctx.Done():
			}
		}
	}
	if ctx.Err() != nil {
		return drover.Errorf(drover.Canceled, "cannot %s %s: %w", op, name, context.Cause(ctx))
	}
	if knobs.Fail != nil {
		return knobs.Fail(op, name)
	}
	return nil
}

// Put is drover.ObjectStore's.
func (m *Memory) Put(ctx context.Context, name string, data []byte) error {
	if err := m.begin(ctx, "put", name); err != nil {
		return err
	}
	if len(data) > int(drover.MaxObject) {
		return drover.Errorf(drover.Invalid, "%s has %d bytes, more than an object may have", name, len(data))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.Puts, m.counts.PutBytes = m.counts.Puts+1, m.counts.PutBytes+drover.Bytes(len(data))
	if _, ok := m.objects[name]; ok {
		m.counts.Twice++
	}
	if m.knobs.Forget == nil || !m.knobs.Forget(name) {
		m.objects[name] = bytes.Clone(data)
	}
	return nil
}

// Get is drover.ObjectStore's.
func (m *Memory) Get(ctx context.Context, name string) ([]byte, error) {
	if err := m.begin(ctx, "get", name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.objects[name]
	if !ok {
		return nil, drover.Errorf(drover.NotFound, "there is no object %s", name)
	}
	b = bytes.Clone(b)
	m.counts.Gets, m.counts.GetBytes = m.counts.Gets+1, m.counts.GetBytes+drover.Bytes(len(b))
	if m.knobs.Flip != nil && len(b) > 0 && m.knobs.Flip(name) {
		b[len(b)/2] ^= 0x10
	}
	return b, nil
}

// Has is drover.ObjectStore's.
func (m *Memory) Has(ctx context.Context, name string) (bool, error) {
	if err := m.begin(ctx, "has", name); err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.Has++
	_, ok := m.objects[name]
	return ok, nil
}

// List is drover.ObjectStore's.
func (m *Memory) List(ctx context.Context, prefix string, fn func(string, drover.Bytes) error) error {
	if err := m.begin(ctx, "list", prefix); err != nil {
		return err
	}
	m.mu.Lock()
	m.counts.Lists++
	m.mu.Unlock()
	for _, name := range m.Names() {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		m.mu.Lock()
		b, ok := m.objects[name]
		m.mu.Unlock()
		if !ok {
			continue
		}
		if err := fn(name, drover.Bytes(len(b))); err != nil {
			return err
		}
	}
	return nil
}

// Delete is drover.ObjectStore's.
func (m *Memory) Delete(ctx context.Context, name string) error {
	if err := m.begin(ctx, "delete", name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.Deletes++
	delete(m.objects, name)
	return nil
}
