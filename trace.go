package drover

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// TraceID names a trace: 32 lower-case hexadecimal digits, as in the W3C's Trace Context.
type TraceID string

// SpanID names a span in its trace: 16 lower-case hexadecimal digits.
type SpanID string

// TraceOf is the trace of whatever has the ID: a migration, or what asked for several of them. It is made from the ID alone, so that a link to it can be
// made without asking anybody, and whoever goes on with a record goes on with its trace.
func TraceOf(id string) TraceID { return TraceID(derive("trace", id)[:32]) }

// SpanOf is a span: the one of the record with the ID itself, or, with more parts, one below it.
func SpanOf(id string, parts ...string) SpanID {
	return SpanID(derive(append([]string{"span", id}, parts...)...)[:16])
}

// derive makes hexadecimal digits of its parts, which cannot run into each other.
func derive(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p)) // never fails
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Span is a piece of a trace.
type Span struct {
	Trace TraceID
	ID    SpanID
	// Parent is empty for the first span of a trace.
	Parent     SpanID
	Name       string
	Start, End time.Time
	Attributes []Attribute
	Events     []SpanEvent
	// Problem says why it failed; empty when it did not.
	Problem string
}

// Attribute is something that is known of a span or an event: a text, or a number if Text is empty.
type Attribute struct {
	Key    string
	Text   string
	Number int64
}

// SpanEvent is a moment in a span.
type SpanEvent struct {
	Name       string
	At         time.Time
	Attributes []Attribute
}
