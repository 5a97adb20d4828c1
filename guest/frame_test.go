package guest

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"drover"
)

// takeFrames returns all frames that d has now.
func takeFrames(d *Decoder) (all []string) {
	for f := d.Next(); f != nil; f = d.Next() {
		all = append(all, string(f))
	}
	return all
}

func encode(t testing.TB, message any) []byte {
	t.Helper()
	b, err := EncodeFrame(message)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecoderTakesBytesOneByOne(t *testing.T) {
	stream := append([]byte("noise\xff\xff"+Magic), append(encode(t, "one"), encode(t, "two")...)...)
	var d Decoder
	var got []string
	for i := range stream {
		d.Feed(stream[i : i+1])
		got = append(got, takeFrames(&d)...)
	}
	if want := `"one" "two"`; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %s", got, want)
	}
}

func TestDecoderBeginsAgainAtMagic(t *testing.T) {
	var d Decoder
	if d.Feed(encode(t, "before any session")) || d.InSession() {
		t.Error("a session began without Magic")
	}
	half := encode(t, strings.Repeat("x", 5000))
	stream := append([]byte(Magic), half[:3000]...)
	if !d.Feed(stream) || len(takeFrames(&d)) != 0 {
		t.Error("half a frame was taken for a whole one")
	}
	if !d.Feed(append([]byte(Magic), encode(t, "new")...)) {
		t.Error("the second session was not seen")
	}
	if got := takeFrames(&d); len(got) != 1 || got[0] != `"new"` {
		t.Errorf("got %q", got)
	}
}

func TestDecoderEndsTheSessionAtABadLength(t *testing.T) {
	for _, length := range []string{"\x00\x00\x00\x00", "\x00\x40\x00\x01", "\x80\x00\x00\x00"} {
		var d Decoder
		d.Feed([]byte(Magic + length))
		if got := takeFrames(&d); got != nil || d.InSession() {
			t.Errorf("length %q: %q, in session %v", length, got, d.InSession())
		}
		d.Feed(append([]byte(Magic), encode(t, 1)...))
		if got := takeFrames(&d); len(got) != 1 {
			t.Errorf("length %q: nothing after the next Magic", length)
		}
	}
}

func TestEncodeFrameRefusesTooMuch(t *testing.T) {
	if _, err := EncodeFrame(strings.Repeat("x", MaxFrame)); !drover.Is(err, drover.Invalid) {
		t.Errorf("got %v", err)
	}
}

// FuzzDecoder holds that no bytes before a Magic change what comes after it, however the stream is cut, and that no frame contains
// a Magic.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte("noise"), "text", 3)
	f.Add([]byte(Magic+"\x00\x00\x01\x00{"), "\xff\xff\xff\xffDRV1", 1)
	f.Fuzz(func(t *testing.T, before []byte, text string, cut int) {
		frame := encode(t, text)
		if bytes.Contains(frame, []byte(Magic)) {
			t.Fatalf("the frame of %q contains Magic", text)
		}
		stream := append(append(bytes.Clone(before), Magic...), frame...)
		cut = max(1, cut%(len(stream)+1))
		var d Decoder
		var last string
		for rest := stream; len(rest) > 0; {
			n := min(cut, len(rest))
			d.Feed(rest[:n])
			rest = rest[n:]
			for _, got := range takeFrames(&d) {
				last = got
			}
		}
		want, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		if last != string(want) {
			t.Fatalf("got %q, want %q", last, want)
		}
	})
}
