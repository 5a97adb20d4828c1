package nbd

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"drover"
)

// Every code that an Opener may return reaches a Client with its text.
func TestOptionErrorsSurviveTheWire(t *testing.T) {
	s := newShelf()
	for _, code := range drover.Codes {
		s.errors[string(code)] = drover.Errorf(code, "reason with [brackets] for %s", code)
	}
	s.errors["plain"] = fmt.Errorf("no code at all")
	s.errors["long"] = drover.Errorf(drover.Conflict, "%s", strings.Repeat("é", maxString))
	s.errors["deadline"] = fmt.Errorf("too slow: %w", context.DeadlineExceeded)
	socket := startServer(t, "unix", s, nil)
	for name, said := range s.errors {
		_, err := Dial(t.Context(), ClientConfig{Network: "unix", Address: socket, Export: name})
		want, text := drover.CodeOf(said), said.Error()
		switch name {
		case "long":
			text = text[:4000]
		case "deadline":
			want = drover.Unavailable
		}
		wantCode(t, err, want)
		if !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "["+string(want)+"]") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if rep, text := optionError(s.errors["long"]); rep != repErrPolicy || len(text) > maxString || !strings.HasSuffix(text, "é [conflict]") {
		t.Errorf("%#x, %d bytes", uint32(rep), len(text))
	}
}

func TestForeignOptionErrorsHaveACode(t *testing.T) {
	for rep, want := range map[optionReply]drover.Code{
		repErrUnknown: drover.NotFound, repErrPolicy: drover.Denied, repErrTLSReqd: drover.Denied, repErrShutdown: drover.Unavailable,
		repErrInvalid: drover.Invalid, repErrTooBig: drover.Invalid, repErrUnsup: drover.Precondition, repErrPlatform: drover.Internal, repError + 77: drover.Internal,
	} {
		if code, text := parseOptionError(rep, ""); code != want || text == "" {
			t.Errorf("%#x: %s %q", uint32(rep), code, text)
		}
	}
	if code, text := parseOptionError(repErrPolicy, "go away [please]\xff"); code != drover.Denied || text != "go away [please]?" {
		t.Errorf("%s %q", code, text)
	}
}

func TestErrorNumbersHaveACode(t *testing.T) {
	for e, want := range map[errno]drover.Code{
		errnoPerm: drover.Denied, errnoIO: drover.Internal, errnoNoMem: drover.Exhausted, errnoInval: drover.Invalid, errnoNoSpace: drover.Exhausted,
		errnoOverflow: drover.Invalid, errnoNotSup: drover.Invalid, errnoShutdown: drover.Unavailable, 999: drover.Internal,
	} {
		if got := e.code(); got != want {
			t.Errorf("%s: %s, want %s", e, got, want)
		}
	}
}
