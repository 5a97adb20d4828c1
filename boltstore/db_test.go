package boltstore

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"

	"drover"
)

type thing struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

func open(t *testing.T, path string) *DB {
	t.Helper()
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestRecordsSurviveReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	things := Bucket[thing]{Name: "things", Version: 1}
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *Tx) error {
		return errors.Join(things.Put(tx, "b", thing{"bee", 2}), things.Put(tx, "a", thing{"ay", 1}))
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	db = open(t, path)
	if err := db.View(func(tx *Tx) error {
		got, ok, err := things.Get(tx, "b")
		if err != nil || !ok || got != (thing{"bee", 2}) {
			t.Errorf("got %+v, %v, %v", got, ok, err)
		}
		if _, ok, err := things.Get(tx, "c"); ok || err != nil {
			t.Errorf("a record that was never put: %v, %v", ok, err)
		}
		var keys []string
		err = things.ForEach(tx, func(key string, _ thing, err error) error {
			keys = append(keys, key)
			return err
		})
		if len(keys) != 2 || keys[0] != "a" || keys[1] != "b" {
			t.Errorf("keys %q", keys)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestAFailedUpdateWritesNothing(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "a.db"))
	things := Bucket[thing]{Name: "things", Version: 1}
	stop := errors.New("stop")
	err := db.Update(func(tx *Tx) error {
		if err := things.Put(tx, "a", thing{}); err != nil {
			return err
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Fatalf("got %v", err)
	}
	if err := db.View(func(tx *Tx) error {
		_, ok, err := things.Get(tx, "a")
		if ok {
			t.Error("the record is there")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestASecondOpenerIsRefusedWithAClearText(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	open(t, path)
	if _, err := Open(path); !drover.Is(err, drover.Conflict) {
		t.Fatalf("got %v, want a conflict", err)
	}
}

func TestANewerRecordIsReportedAndTheOthersAreRead(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "a.db"))
	old, newer := Bucket[thing]{Name: "things", Version: 1}, Bucket[thing]{Name: "things", Version: 2}
	if err := db.Update(func(tx *Tx) error {
		return errors.Join(newer.Put(tx, "new", thing{Name: "n"}), old.Put(tx, "old", thing{Name: "o"}))
	}); err != nil {
		t.Fatal(err)
	}
	var read, refused []string
	if err := db.View(func(tx *Tx) error {
		return old.ForEach(tx, func(key string, _ thing, err error) error {
			if drover.Is(err, drover.Precondition) {
				refused = append(refused, key)
				return nil
			}
			read = append(read, key)
			return err
		})
	}); err != nil {
		t.Fatal(err)
	}
	if len(read) != 1 || read[0] != "old" || len(refused) != 1 || refused[0] != "new" {
		t.Errorf("read %q, refused %q", read, refused)
	}
}

func TestAnOlderRecordIsUpgraded(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "a.db"))
	old := Bucket[string]{Name: "things", Version: 1}
	now := Bucket[thing]{Name: "things", Version: 2, Upgrade: func(version int, data []byte) (t thing, err error) {
		err = json.Unmarshal(data, &t.Name)
		t.Count = version
		return t, err
	}}
	if err := db.Update(func(tx *Tx) error { return old.Put(tx, "a", "ay") }); err != nil {
		t.Fatal(err)
	}
	if err := db.View(func(tx *Tx) error {
		got, ok, err := now.Get(tx, "a")
		if !ok || got != (thing{"ay", 1}) {
			t.Errorf("got %+v, %v", got, ok)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestMigrationsRunOnceAndANewerFileIsRefused(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "a.db"))
	ran := map[string]int{}
	step := func(to uint64, name string) Migration {
		return Migration{To: to, Name: name, Apply: func(*Tx) error { ran[name]++; return nil }}
	}
	one, two := step(1, "one"), step(2, "two")
	for _, list := range [][]Migration{{one}, {one, two}, {one, two}} {
		if err := db.Migrate(list); err != nil {
			t.Fatal(err)
		}
	}
	if ran["one"] != 1 || ran["two"] != 1 {
		t.Errorf("ran %v", ran)
	}
	if err := db.Migrate([]Migration{one}); !drover.Is(err, drover.Precondition) {
		t.Errorf("an older program opened a newer file: %v", err)
	}
	if err := db.Migrate([]Migration{two}); err == nil {
		t.Error("a list with a gap was accepted")
	}
}

func TestAFailedMigrationLeavesTheOldFormat(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "a.db"))
	bad := errors.New("bad")
	err := db.Migrate([]Migration{{To: 1, Name: "one", Apply: func(*Tx) error { return bad }}})
	if !errors.Is(err, bad) {
		t.Fatalf("got %v", err)
	}
	if format, err := db.Format(); format != 0 || err != nil {
		t.Errorf("format %d, %v", format, err)
	}
}
