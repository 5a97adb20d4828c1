package natsbus

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"drover"
)

// Error codes of JetStream (nats-server, server/errors.json) that mean something to us beyond "it did not work".
const (
	errWrongLastSequence         = 10071
	errWrongLastSequenceConstant = 10164
	errMessageNotFound           = 10037
	errStreamNotFound            = 10059
	errStoreFailed               = 10077
	errInsufficientResources     = 10023
	errStorageExceeded           = 10047
	errMemoryExceeded            = 10028
	errMaxPayload                = 10054
)

// translate makes a *drover.Error of what the libraries return. what names the action: "cannot read machines/1234".
// Conflict always means that the revision was stale; what that says of the record is the caller's to word.
func translate(err error, what string) *drover.Error {
	if err == nil {
		return nil
	}
	var known *drover.Error
	if errors.As(err, &known) {
		return drover.AsError(err)
	}
	return drover.Errorf(codeOf(err), "%s: %w", what, err)
}

func codeOf(err error) drover.Code {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch int(api.ErrorCode) {
		case errWrongLastSequence, errWrongLastSequenceConstant:
			return drover.Conflict
		case errMessageNotFound:
			return drover.NotFound
		case errStoreFailed, errInsufficientResources, errStorageExceeded, errMemoryExceeded:
			return drover.Exhausted
		case errMaxPayload:
			return drover.Invalid
		case errStreamNotFound:
			return drover.Unavailable // the control side has not made its buckets yet
		}
		if api.Code >= 500 {
			return drover.Unavailable
		}
		return drover.Internal
	}
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return drover.NotFound
	case errors.Is(err, nats.ErrMaxPayload):
		return drover.Invalid
	case errors.Is(err, context.Canceled):
		return drover.Canceled
	}
	// What is left are connections and timeouts: lost, not yet there, no leader, nobody listening.
	return drover.Unavailable
}
