package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"drover"
	"drover/apiv1"
)

// exitCode is the one table from codes to exit codes; newRootCommand's help has it for people.
func exitCode(code drover.Code) int {
	switch code {
	case "":
		return 0
	case drover.Invalid:
		return 2
	case drover.NotFound:
		return 3
	case drover.Exists, drover.Conflict:
		return 4
	case drover.Precondition:
		return 5
	case drover.Exhausted:
		return 6
	case drover.Unavailable:
		return 7
	case drover.Denied:
		return 8
	case drover.Canceled:
		return 130 // as a shell reports a command that Ctrl-C ended
	default: // drover.Internal
		return 1
	}
}

// exitTimedOut is the exit code when a command in a machine took longer than it may, as timeout(1) has it.
const exitTimedOut = 124

// codedError is an error with another exit code than its code's.
type codedError struct {
	cause error
	exit  int
}

func (e *codedError) Error() string { return e.cause.Error() }

// Unwrap gives errors.As the error with the code.
func (e *codedError) Unwrap() error { return e.cause }

// exitError ends the program with a code and without a text: what there is to say has been said.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// report prints the error and the next step, as one JSON object if asJSON is set, and returns the exit code.
func report(w io.Writer, asJSON bool, err error) int {
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	if err == nil {
		return 0
	}
	e := drover.AsError(err)
	code := exitCode(e.Code)
	if coded := (*codedError)(nil); errors.As(err, &coded) {
		code = coded.exit
	}
	if asJSON {
		body, jsonErr := json.Marshal(apiv1.ErrorResponse{Error: e.Text, Message: e.Text, Code: e.Code, Hint: e.Hint, Field: e.Field})
		if jsonErr == nil {
			fmt.Fprintf(w, "%s\n", body)
			return code
		}
	}
	fmt.Fprintf(w, "Error: %s\n", e.Text)
	if e.Hint != "" {
		fmt.Fprintf(w, "Hint: %s\n", e.Hint)
	}
	return code
}
