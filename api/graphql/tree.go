package graphql

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
)

// Args are a field's arguments, with the variables put in. One that was left out, or whose variable was, is not there.
type Args map[string]any

// String returns a text argument, "" for one that is not there or is no text.
func (a Args) String(name string) string {
	s, _ := a[name].(string)
	return s
}

// Object returns an argument of an input type; empty for one that is not there.
func (a Args) Object(name string) Args {
	o, _ := a[name].(map[string]any)
	return o
}

// Int returns a number, or absent for one that is not there.
func (a Args) Int(name string, absent int) int {
	switch n := a[name].(type) {
	case int64:
		return int(n)
	case float64:
		return int(n)
	case json.Number:
		if i, err := n.Int64(); err == nil {
			return int(i)
		}
	}
	return absent
}

// Field finds the value of a field: nil, a text, a number, a bool, an Object, a []Object, or JSON (any other value that can be
// written as such). It is called when the field is asked for, and not otherwise. An error makes the field null.
type Field func(ctx context.Context, args Args) (any, error)

// Object is a value with fields.
type Object struct {
	// Type is what __typename says, and what the condition of a fragment is compared with. Also are other names that fragments may use for it.
	Type string
	Also []string
	// Fields are those with arguments, or whose values have to be looked up; Values are all others.
	Fields map[string]Field
	Values map[string]any
	// Unknown, when it is set, is the error of a field that the object does not have.
	Unknown func(name string) error
}

func (o Object) is(condition string) bool {
	if condition == "" || condition == o.Type {
		return true
	}
	for _, t := range o.Also {
		if t == condition {
			return true
		}
	}
	return false
}

// Error is one entry of an answer's errors.
type Error struct {
	Message    string         `json:"message"`
	Path       []any          `json:"path,omitempty"`
	Locations  []Location     `json:"locations,omitempty"`
	Extensions map[string]any `json:"extensions,omitempty"`
}

// Location is a place in the request's text.
type Location struct {
	Line   int `json:"line"`
	Column int `json:"column"`
}

// Response is the answer to a request. Data is null when nothing could be answered.
type Response struct {
	Data   any     `json:"data"`
	Errors []Error `json:"errors,omitempty"`
}

// Failure is the answer to a request that was not looked at.
func Failure(message string, extensions map[string]any) Response {
	return Response{Errors: []Error{{Message: message, Extensions: extensions}}}
}

// members is an object of the answer: its keys are in the order in which they were asked for.
type members []member

type member struct {
	key   string
	value any
}

// MarshalJSON writes an object.
func (m members) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, member := range m {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(member.key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(member.value)
		if err != nil {
			return nil, fmt.Errorf("field %q: %w", member.key, err)
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}
