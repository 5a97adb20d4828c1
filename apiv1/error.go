package apiv1

import "drover"

// ErrorResponse is the body of every answer that is not a success.
type ErrorResponse struct {
	// Error is the text for people.
	Error string `json:"error"`
	// Message is the same text under the name that some clients look for first.
	Message string `json:"message"`
	// Status is one of the words that the Machines API defines for programs (StatusCapacity, StatusNameTaken); empty where it
	// has none for the case.
	Status string `json:"status,omitempty"`
	// Code classifies every error.
	Code drover.Code `json:"code"`
	// Hint is the next step to take.
	Hint string `json:"hint,omitempty"`
	// Field is the request field at fault, as a path such as "config.guest.memory_mb".
	Field string `json:"field,omitempty"`
	// RequestID is that of the fly-request-id header, by which the server's log is searched.
	RequestID string `json:"request_id,omitempty"`
}

// The words of ErrorResponse.Status that clients of the Machines API act upon.
const (
	StatusCapacity  = "insufficient_capacity"
	StatusNameTaken = "name_taken"
	// StatusError is beside the refusal of a lease that somebody else has, where a lease that was given has "success".
	StatusError = "error"
)

// RequestIDHeader names the request: in every answer, and in a request that has an ID already.
const RequestIDHeader = "fly-request-id"

// IdempotencyHeader is the request header with a key under which a create is carried out once. NextCursorHeader is the response header
// with the cursor of a list's next page.
const (
	IdempotencyHeader = "Idempotency-Key"
	NextCursorHeader  = "Next-Cursor"
)

// OK is the answer of an action that has nothing else to tell.
type OK struct {
	OK bool `json:"ok"`
}

// Health is the answer of GET /v1/healthz.
type Health struct {
	Status  string `json:"status"`
	Version string `json:"version"`
}
