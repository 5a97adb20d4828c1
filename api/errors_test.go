package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"drover"
	"drover/apiv1"
)

func TestEveryCodeHasAStatus(t *testing.T) {
	want := map[drover.Code]int{
		drover.Invalid: 400, drover.NotFound: 404, drover.Exists: 409, drover.Conflict: 409, drover.Precondition: 412, drover.Exhausted: 422,
		drover.Unavailable: 504, drover.Denied: 403, drover.Canceled: 499, drover.Internal: 500,
	}
	for _, code := range drover.Codes {
		status, ok := want[code]
		if !ok {
			t.Errorf("the code %q is new: give it a status in statusOf and in this table", code)
		}
		if got := statusOf(code); got != status {
			t.Errorf("%s: %d, want %d", code, got, status)
		}
		if code != drover.Internal && statusOf(code) == http.StatusInternalServerError {
			t.Errorf("%s falls through to 500", code)
		}
	}
	if len(want) != len(drover.Codes) {
		t.Errorf("the table has %d codes, there are %d", len(want), len(drover.Codes))
	}
}

func TestErrorAnswer(t *testing.T) {
	full := drover.Errorf(drover.Exhausted, "no host has 9 GB free").WithField("config.guest.memory_mb").WithHint("ask for less")
	for _, c := range []struct {
		name   string
		err    error
		status int
		want   apiv1.ErrorResponse
	}{
		{"whole", full, 422, apiv1.ErrorResponse{Error: "no host has 9 GB free", Message: "no host has 9 GB free", Status: "insufficient_capacity", Code: "exhausted", Field: "config.guest.memory_mb",
			Hint: "ask for less", RequestID: "R"}},
		{"wrapped", fmt.Errorf("cannot place machine: %w", full), 422, apiv1.ErrorResponse{Error: "cannot place machine: no host has 9 GB free",
			Message: "cannot place machine: no host has 9 GB free",
			Status:  "insufficient_capacity", Code: "exhausted", Field: "config.guest.memory_mb", Hint: "ask for less", RequestID: "R"}},
		{"other status", withStatus(413, drover.Errorf(drover.Invalid, "too large")), 413, apiv1.ErrorResponse{Error: "too large", Message: "too large", Code: "invalid", RequestID: "R"}},
	} {
		if status, got := errorAnswer(c.err, "R"); status != c.status || got != c.want {
			t.Errorf("%s: %d %+v", c.name, status, got)
		}
	}
	for _, err := range []error{errors.New("secret detail"), drover.Errorf(drover.Internal, "secret detail")} {
		status, got := errorAnswer(err, "R")
		if status != 500 || strings.Contains(fmt.Sprint(got), "secret") || !strings.Contains(got.Error, "R") {
			t.Errorf("%v: %d %+v", err, status, got)
		}
	}
}

func TestSplitCommand(t *testing.T) {
	for line, want := range map[string]string{
		"":                    "",
		"  ls   -l ":          "ls|-l",
		`sh -c 'a  "b"'`:      `sh|-c|a  "b"`,
		`a "b \"c\" \d" e\ f`: `a|b "c" \d|e f`,
		`'' x`:                "|x",
		`a'b'"c"`:             "abc",
	} {
		got, err := splitCommand(line)
		if err != nil || strings.Join(got, "|") != want {
			t.Errorf("%q: %q, %v; want %q", line, got, err, want)
		}
	}
	for _, line := range []string{`a 'b`, `a "b`, `a \`} {
		if got, err := splitCommand(line); !drover.Is(err, drover.Invalid) {
			t.Errorf("%q: %q, %v", line, got, err)
		}
	}
}

func TestNamesInPathsAreChecked(t *testing.T) {
	for id, want := range map[string]bool{"3d8d9c2b7e0a15": true, "3D8d9c2b7e0a15": false, "3d8d9c2b7e0a1": false, "": false, "3d8d9c2b7e0a1/": false} {
		if drover.ValidMachineID(id) != want {
			t.Errorf("machine %q", id)
		}
	}
	if !validVolumeID("vol_0123456789abcdef") || validVolumeID("0123456789abcdef") || validVolumeID("mig_0123456789abcdef") {
		t.Error("volume")
	}
	if !validMigrationID("mig_0123456789abcdef") || validMigrationID("mig_") {
		t.Error("migration")
	}
}
