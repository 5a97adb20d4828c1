package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRecordTellsDamage(t *testing.T) {
	r := record(42, "cafe0123")
	if n, ok := parseRecord(r); !ok || n != 42 || len(r) != recordSize {
		t.Fatalf("parsed %d, %v of %q", n, ok, r)
	}
	for i := range recordSize {
		bad := append([]byte(nil), r...)
		bad[i] ^= 1
		if _, ok := parseRecord(bad); ok {
			t.Errorf("a flipped bit in byte %d was not noticed: %q", i, bad)
		}
	}
}

func TestWholeRecordsCutsATornTailOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	content := append(append(record(1, "a"), record(2, "a")...), record(3, "a")[:20]...)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := wholeRecords(f); err != nil || n != 2 {
		t.Fatalf("found %d, %v; want 2", n, err)
	}
	if st, _ := f.Stat(); st.Size() != 2*recordSize {
		t.Errorf("the torn record is still there: %d bytes", st.Size())
	}
}

func TestFilledBlocksDifferAndRepeat(t *testing.T) {
	a, b, c := make([]byte, blockSize), make([]byte, blockSize), make([]byte, blockSize)
	fillBlock(a, 0)
	fillBlock(b, 1)
	fillBlock(c, 0)
	if string(a) == string(b) || string(a) != string(c) {
		t.Fatal("block content does not depend on the number alone")
	}
}
