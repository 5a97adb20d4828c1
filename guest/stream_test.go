package guest

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"drover/internal/frames"
)

// TestStreamFramesHoldAnything: bytes that look like the beginning of a session pass as what they are.
func TestStreamFramesHoldAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.OneOf(rapid.Just([]byte(Magic)), rapid.Just([]byte{0xff}), rapid.Just([]byte{0xff, 0xff, 0xff}), rapid.Just([]byte{0}),
			rapid.SliceOfN(rapid.Byte(), 0, 20))
		var d Decoder
		d.Feed([]byte(Magic))
		var stream []byte
		var sent []frames.Frame
		for i, parts := range rapid.SliceOfN(rapid.SliceOfN(part, 0, 8), 1, 5).Draw(t, "frames") {
			f := frames.Frame{Kind: frames.Stdout, Data: bytes.Join(parts, nil)}
			sent = append(sent, f)
			stream = append(stream, EncodeStream(uint64(0xffffff00+i), f)...)
		}
		for len(stream) > 0 {
			n := rapid.IntRange(1, len(stream)).Draw(t, "piece")
			if d.Feed(stream[:n]) {
				t.Fatal("a frame began a session")
			}
			stream = stream[n:]
		}
		for i, want := range sent {
			id, got, ok := DecodeStream(d.Next())
			if !ok || id != uint64(0xffffff00+i) || got.Kind != want.Kind || !bytes.Equal(got.Data, want.Data) {
				t.Fatalf("frame %d is %v %x, want %x", id, ok, got.Data, want.Data)
			}
		}
	})
}
