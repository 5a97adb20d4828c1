package sealedsecrets

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"drover"
)

// memory is a store of records and of keys in memory. It can be cut at any operation, before or after it has had its effect.
type memory struct {
	rev     uint64
	records map[string][]byte
	revs    map[string]uint64
	keys    map[drover.KeyID][]byte
	// left is how many operations go through until the power goes out; negative for all. after: the last one has its effect.
	left  int
	after bool
	out   bool
	// between is called before each write, once.
	between func()
}

var errPower = drover.Errorf(drover.Unavailable, "the power is out")

func newMemory() *memory {
	return &memory{records: map[string][]byte{}, revs: map[string]uint64{}, keys: map[drover.KeyID][]byte{}, left: -1}
}

func (m *memory) step(do func() error) error {
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
		data, ok := m.records[key]
		if !ok {
			return drover.Errorf(drover.NotFound, "no record %s", key)
		}
		rev = m.revs[key]
		return json.Unmarshal(data, &r)
	})
	return r, rev, err
}

func (m *memory) put(key string, r Record, ok func() bool) (rev uint64, err error) {
	if between := m.between; between != nil {
		m.between = nil
		between()
	}
	err = m.step(func() error {
		if !ok() {
			return drover.Errorf(drover.Conflict, "%s has another revision", key)
		}
		data, err := json.Marshal(r)
		m.rev++
		m.records[key], m.revs[key] = data, m.rev
		rev = m.rev
		return err
	})
	return rev, err
}

func (m *memory) Create(_ context.Context, key string, r Record) (uint64, error) {
	return m.put(key, r, func() bool { _, ok := m.records[key]; return !ok })
}

func (m *memory) Update(_ context.Context, key string, r Record, old uint64) (uint64, error) {
	return m.put(key, r, func() bool { return m.revs[key] == old })
}

func (m *memory) Delete(_ context.Context, key string, old uint64) error {
	return m.step(func() error {
		if m.revs[key] != old {
			return drover.Errorf(drover.Conflict, "%s has another revision", key)
		}
		m.rev++
		delete(m.records, key)
		delete(m.revs, key)
		return nil
	})
}

func (m *memory) Keys(context.Context) (keys []string, err error) {
	err = m.step(func() error { keys = slices.Sorted(maps.Keys(m.records)); return nil })
	return keys, err
}

// keyStore is the same memory as a store of keys.
type keyStore struct{ *memory }

func (k keyStore) CreateKey(_ context.Context, id drover.KeyID) error {
	return k.step(func() error { k.keys[id] = bytes.Repeat([]byte(id[4:8]), 16); return nil })
}

func (k keyStore) Key(_ context.Context, id drover.KeyID) (key []byte, err error) {
	err = k.step(func() error {
		if k.keys[id] == nil {
			return drover.Errorf(drover.NotFound, "there is no key %s", id)
		}
		key = slices.Clone(k.keys[id])
		return nil
	})
	return key, err
}

func (k keyStore) ClaimKey(ctx context.Context, id drover.KeyID) error {
	_, err := k.Key(ctx, id)
	return err
}

func (k keyStore) DeleteKey(ctx context.Context, id drover.KeyID, used func(ctx context.Context) (bool, error)) error {
	needed, err := used(ctx)
	if err != nil || needed {
		return err
	}
	return k.step(func() error { delete(k.keys, id); return nil })
}

func storeOver(m *memory) *Store {
	return New(Config{Records: m, Keys: keyStore{m}, Used: func(ctx context.Context, id drover.KeyID) (bool, error) {
		for _, data := range m.records {
			if bytes.Contains(data, []byte(id)) {
				return true, nil
			}
		}
		return false, nil
	}})
}

func stays(context.Context) error { return nil }

func change(values map[string]string) map[string]*drover.SecretValue {
	out := map[string]*drover.SecretValue{}
	for name, text := range values {
		v := drover.NewSecretValue(text)
		out[name] = &v
	}
	return out
}

// texts reads all values.
func texts(t *testing.T, s *Store) map[string]string {
	t.Helper()
	v, err := s.Values(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for name, value := range v.Values {
		out[name] = value.Reveal()
	}
	return out
}

// The power may go at every operation, before or after it was done: a change is there whole or not at all, what was answered stays, and the same change made
// again gets there.
func TestACutAtEveryStepOfAChange(t *testing.T) {
	first, second := map[string]string{"A": "one", "B": "two"}, map[string]string{"A": "three", "C": "four"}
	all := map[string]string{"A": "three", "B": "two", "C": "four"}
	for _, after := range []bool{false, true} {
		for k, reached := 0, true; reached; k++ {
			m := newMemory()
			s := storeOver(m)
			m.left, m.after = k, after
			_, err1 := s.Change(t.Context(), "app", change(first), stays)
			_, err2 := s.Change(t.Context(), "app", change(second), stays)
			reached = m.out
			m.left, m.out = -1, false
			got := texts(t, s)
			want := []map[string]string{all}
			switch {
			case err1 != nil:
				want = []map[string]string{{}, first}
			case err2 != nil:
				want = []map[string]string{first, all}
			}
			if !slices.ContainsFunc(want, func(w map[string]string) bool { return maps.Equal(w, got) }) {
				t.Fatalf("after %v, k %d: %v (%v, %v)", after, k, got, err1, err2)
			}
			if _, err := s.Change(t.Context(), "app", change(all), stays); err != nil || !maps.Equal(texts(t, s), all) {
				t.Fatalf("after %v, k %d, again: %v", after, k, err)
			}
			if err := s.Drop(t.Context(), "app"); err != nil || len(m.records) != 0 {
				t.Fatalf("after %v, k %d, drop: %v", after, k, err)
			}
		}
	}
}

func TestTwoChangesAtOnceAreBothThere(t *testing.T) {
	m := newMemory()
	s := storeOver(m)
	m.between = func() {
		if _, err := s.Change(t.Context(), "app", change(map[string]string{"B": "two"}), stays); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Change(t.Context(), "app", change(map[string]string{"A": "one"}), stays); err != nil {
		t.Fatal(err)
	}
	if got := texts(t, s); !maps.Equal(got, map[string]string{"A": "one", "B": "two"}) {
		t.Error(got)
	}
}

// A change for an app that goes meanwhile is taken back; one that another came after is left to that.
func TestAChangeIsTakenBackWhenTheAppGoes(t *testing.T) {
	gone := errors.New("the app is gone")
	refuse := func(context.Context) error { return gone }
	m := newMemory()
	s := storeOver(m)
	if _, err := s.Change(t.Context(), "app", change(map[string]string{"A": "one"}), refuse); !errors.Is(err, gone) || len(m.records) != 0 {
		t.Errorf("%v, %v", err, m.records)
	}
	if _, err := s.Change(t.Context(), "app", change(map[string]string{"A": "one"}), stays); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Change(t.Context(), "app", change(map[string]string{"A": "two"}), refuse); !errors.Is(err, gone) || texts(t, s)["A"] != "one" {
		t.Errorf("%v, %v", err, texts(t, s))
	}
}

func TestWhatIsTooMuchIsRefused(t *testing.T) {
	s := storeOver(newMemory())
	many := map[string]string{}
	for i := range drover.MaxSecrets + 1 {
		many[fmt.Sprintf("N%d", i)] = "x"
	}
	large := map[string]string{}
	for i := range 5 {
		large[fmt.Sprintf("N%d", i)] = string(bytes.Repeat([]byte("x"), drover.MaxSecretBytes))
	}
	for what, values := range map[string]map[string]string{"many": many, "large": large} {
		if _, err := s.Change(t.Context(), "app", change(values), stays); !drover.Is(err, drover.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A value does not open under another name, nor in another app.
func TestValuesCannotBeSwapped(t *testing.T) {
	m := newMemory()
	s := storeOver(m)
	if _, err := s.Change(t.Context(), "app", change(map[string]string{"A": "one", "B": "two"}), stays); err != nil {
		t.Fatal(err)
	}
	r, rev, err := m.Get(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	r.Secrets["A"], r.Secrets["B"] = r.Secrets["B"], r.Secrets["A"]
	if _, err := m.Update(t.Context(), "app", r, rev); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Values(t.Context(), "app"); !drover.Is(err, drover.Internal) {
		t.Error(err)
	}
}
