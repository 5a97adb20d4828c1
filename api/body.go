package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"unicode/utf8"

	"drover"
)

// What a request may hold.
const (
	// maxBody bounds a request's body, in bytes.
	maxBody = 1 << 20
	// maxDepth bounds how deep its objects and arrays may be nested.
	maxDepth = 64
)

// readBody reads the body into the value that v points to. An empty body is an error unless it is optional. Errors are Invalid; they
// say where the JSON is malformed, or which field is of the wrong type.
func readBody(w http.ResponseWriter, r *http.Request, v any, optional bool) error {
	_, err := readInto(w, r, v, optional)
	return err
}

// readInto is readBody that also returns the body; nil for one that was left out.
func readInto(w http.ResponseWriter, r *http.Request, v any, optional bool) ([]byte, error) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, bodyError(r, err)
	}
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		if optional {
			return nil, nil
		}
		return nil, drover.Errorf(drover.Invalid, "the request has no body; expected a JSON object").
			WithHint("GET /v1/openapi.json describes every request")
	}
	if err := wellFormed(raw); err != nil {
		return nil, err
	}
	if err := checkShape("", raw, reflect.TypeOf(v).Elem()); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return nil, typeError(err)
	}
	return raw, nil
}

func bodyError(r *http.Request, err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return withStatus(http.StatusRequestEntityTooLarge,
			drover.Errorf(drover.Invalid, "the request's body is larger than %d bytes", tooLarge.Limit))
	}
	if r.Context().Err() != nil {
		return drover.Errorf(drover.Canceled, "the client ended the request: %w", err)
	}
	return drover.Errorf(drover.Invalid, "cannot read the request's body: %w", err)
}

// wellFormed checks the syntax and the depth, and that it is one value and an object.
func wellFormed(raw []byte) error {
	// The decoder would put another character in the place of each wrong byte, and a variable would be another than the one that was sent.
	if !utf8.Valid(raw) {
		line, column := position(raw, int64(firstNotUTF8(raw))+1)
		return drover.Errorf(drover.Invalid, "the request's body is not UTF-8 at line %d, column %d; JSON is written in UTF-8", line, column)
	}
	if depth := nesting(raw); depth > maxDepth {
		return drover.Errorf(drover.Invalid, "the request's body is nested %d levels deep; at most %d are accepted", depth, maxDepth)
	}
	var any json.RawMessage
	err := json.Unmarshal(raw, &any)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		line, column := position(raw, syntax.Offset)
		return drover.Errorf(drover.Invalid, "malformed JSON at line %d, column %d (offset %d): %w", line, column, syntax.Offset, err)
	}
	if err != nil {
		return drover.Errorf(drover.Invalid, "malformed JSON: %w", err)
	}
	if raw[0] != '{' {
		return drover.Errorf(drover.Invalid, "the request's body is %s; expected a JSON object", describe(raw))
	}
	return nil
}

// firstNotUTF8 returns where the first byte is that belongs to no character.
func firstNotUTF8(raw []byte) int {
	at := 0
	for at < len(raw) {
		r, size := utf8.DecodeRune(raw[at:])
		if r == utf8.RuneError && size <= 1 {
			break
		}
		at += size
	}
	return at
}

// nesting returns how deep the objects and arrays of the text go, without requiring that it is valid JSON.
func nesting(raw []byte) int {
	depth, deepest, inText := 0, 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

// position turns an offset into a line and a column, both from 1.
func position(raw []byte, offset int64) (line, column int) {
	before := raw[:min(max(offset, 0), int64(len(raw)))]
	line = bytes.Count(before, []byte("\n")) + 1
	return line, len(before) - bytes.LastIndexByte(before, '\n') - 1
}

// typeError reports what checkShape let through and the decoder did not.
func typeError(err error) error {
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) {
		return drover.Errorf(drover.Invalid, "%s: expected %s, got %s", t.Field, kindName(t.Type), t.Value).WithField(t.Field)
	}
	return drover.Errorf(drover.Invalid, "cannot read the request's body: %w", err)
}

// describe names a JSON value for an error text: what it is and, where it is short, what it says.
func describe(raw []byte) string {
	const most = 40
	short := string(raw)
	if len(raw) > most {
		short = string(bytes.ToValidUTF8(raw[:most], nil)) + "..."
	}
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "the text " + short
	case 't', 'f':
		return short
	case 'n':
		return "null"
	default:
		return fmt.Sprintf("the number %s", short)
	}
}
