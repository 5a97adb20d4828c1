package main

import (
	"strings"
	"testing"
)

func TestWritingASourceOffNamesWhatIsLost(t *testing.T) {
	_, r, id := prepared(t)
	if got := r.run(t.Context(), "machine", "move", string(id), "--detach"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	const mig = "mig_0000000000000002"
	got := r.run(t.Context(), "migration", "write-off", mig, "--reason", "it has burnt")
	if got.code != 5 || !strings.Contains(got.stderr, "1 MiB of its data never came from") || !strings.Contains(got.stderr, "--yes") {
		t.Errorf("unasked: %+v", got)
	}
	for range 2 {
		got = r.run(t.Context(), "migration", "write-off", mig, "--reason", "it has burnt", "--yes")
		if got.code != 0 || !strings.HasPrefix(got.stdout, "DISK") || !strings.Contains(got.stdout, "1 MiB") {
			t.Errorf("%+v", got)
		}
	}
	got = r.run(t.Context(), "migration", "show", mig)
	if !strings.Contains(got.stdout, "(it has burnt): 1 MiB of disk ") {
		t.Errorf("%+v", got)
	}
}
