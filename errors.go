package drover

import (
	"errors"
	"fmt"
)

// Code classifies an error for programs. The list only grows.
type Code string

// The codes.
const (
	// Invalid: the request itself is wrong and will stay wrong.
	Invalid Code = "invalid"
	// NotFound: the thing named does not exist.
	NotFound Code = "not_found"
	// Exists: the name or identity is taken by something else.
	Exists Code = "exists"
	// Conflict: something else is at work on the thing, or it changed meanwhile; try again later.
	Conflict Code = "conflict"
	// Precondition: the thing is in a state that does not allow this.
	Precondition Code = "precondition"
	// Exhausted: not enough memory, CPU, disk or quota.
	Exhausted Code = "exhausted"
	// Unavailable: a part that is needed does not answer now.
	Unavailable Code = "unavailable"
	// Denied: the caller may not do this.
	Denied Code = "denied"
	// Canceled: the caller, or an abort, ended it.
	Canceled Code = "canceled"
	// Internal: a defect or an environment that should not be.
	Internal Code = "internal"
)

// Codes lists every code, for tables that must be complete.
var Codes = []Code{Invalid, NotFound, Exists, Conflict, Precondition, Exhausted, Unavailable, Denied, Canceled, Internal}

// Error is the one error type that crosses rooms: what was wrong, and what to do next.
type Error struct {
	Code Code   `json:"code"`
	Text string `json:"text"`
	// Hint is the next step to take; it may be empty.
	Hint string `json:"hint,omitempty"`
	// Field is the request field at fault, as a path such as "config.guest.memory_mb"; it may be empty.
	Field string `json:"field,omitempty"`
	cause error
}

// Error returns the text; it already contains the text of the cause.
func (e *Error) Error() string { return e.Text }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// WithHint returns the error with a next step for the reader.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// WithField returns the error with the request field at fault.
func (e *Error) WithField(path string) *Error {
	c := *e
	c.Field = path
	return &c
}

// Errorf makes an error of a code. A %w in the format keeps its argument as the cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Text: err.Error(), cause: errors.Unwrap(err)}
}

// CodeOf returns the code of the first *Error in the chain, Internal for any other error, and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

// Is reports whether err carries the code.
func Is(err error, code Code) bool { return err != nil && CodeOf(err) == code }

// AsError returns err as an *Error. Where an *Error was wrapped with more text, the result has the code,
// hint and field of the wrapped one and the whole text; any other error becomes Internal.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*Error); ok {
		return e
	}
	out := &Error{Code: Internal, Text: err.Error(), cause: err}
	var e *Error
	if errors.As(err, &e) {
		out.Code, out.Hint, out.Field = e.Code, e.Hint, e.Field
	}
	return out
}
