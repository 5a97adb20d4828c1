package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"drover"
	"drover/apiv1"
)

// statusClientGone is what is logged, and written where somebody still reads, for a request that was given up.
// The number is not in any RFC, but it is the one in general use.
const statusClientGone = 499

// statusOf is the one table from codes to HTTP statuses. No code maps to 502 or 503 (see the package comment): what is exhausted
// gets 422 with apiv1.StatusCapacity, what does not answer gets 504.
func statusOf(code drover.Code) int {
	switch code {
	case drover.Invalid:
		return http.StatusBadRequest
	case drover.NotFound:
		return http.StatusNotFound
	case drover.Exists, drover.Conflict:
		return http.StatusConflict
	case drover.Precondition:
		return http.StatusPreconditionFailed
	case drover.Exhausted:
		return http.StatusUnprocessableEntity
	case drover.Unavailable:
		return http.StatusGatewayTimeout
	case drover.Denied:
		return http.StatusForbidden
	case drover.Canceled:
		return statusClientGone
	default: // drover.Internal, and any error without a code
		return http.StatusInternalServerError
	}
}

// httpError is an error that gets another status than its code's, or a word of the Machines API beside it.
type httpError struct {
	cause  *drover.Error
	status int
	word   string
}

func (e *httpError) Error() string { return e.cause.Error() }

// Unwrap gives errors.As the error with the code.
func (e *httpError) Unwrap() error { return e.cause }

// withStatus gives the error another HTTP status than its code's.
func withStatus(status int, err *drover.Error) error { return &httpError{cause: err, status: status} }

// errorAnswer turns an error into a status and a body.
func errorAnswer(err error, requestID string) (int, apiv1.ErrorResponse) {
	e := drover.AsError(err)
	status, word := statusOf(e.Code), ""
	if e.Code == drover.Exhausted {
		word = apiv1.StatusCapacity
	}
	var h *httpError
	if errors.As(err, &h) {
		e, status, word = h.cause, h.status, h.word
	}
	if status == http.StatusInternalServerError {
		return status, apiv1.ErrorResponse{
			Error:     "internal error (request " + requestID + ")",
			Message:   "internal error (request " + requestID + ")",
			Code:      drover.Internal,
			Hint:      "tell the operator the request's ID: the server's log has the details under it",
			RequestID: requestID,
		}
	}
	return status, apiv1.ErrorResponse{Error: e.Text, Message: e.Text, Status: word, Code: e.Code, Hint: e.Hint, Field: e.Field, RequestID: requestID}
}

// writeJSON writes the answer; with 204 there is none. An error here means that the client has gone, or that a value cannot be written as JSON; it is
// returned for the log.
func writeJSON(w http.ResponseWriter, status int, body any) error {
	if status == http.StatusNoContent {
		w.WriteHeader(status)
		return nil
	}
	var length int
	var write func(io.Writer) error
	switch body := body.(type) {
	case array:
		length, write = body.length(), body.write
	case json.RawMessage:
		length, write = len(body), func(w io.Writer) error { _, err := w.Write(body); return err }
	default:
		data, err := json.Marshal(body)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return err
		}
		length, write = len(data), func(w io.Writer) error { _, err := w.Write(data); return err }
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(length+1))
	w.WriteHeader(status)
	// What was written already is others' too, so nothing is added to it.
	err := write(w)
	if err == nil {
		_, err = w.Write([]byte{'\n'})
	}
	return err
}
