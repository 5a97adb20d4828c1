package client

import (
	"context"

	"drover/apiv1"
)

// headersKey is the key of a context's headers.
type headersKey struct{}

// headersOf returns the headers that the requests of a context carry.
func headersOf(ctx context.Context) map[string]string {
	headers, _ := ctx.Value(headersKey{}).(map[string]string)
	return headers
}

func withHeader(ctx context.Context, name, value string) context.Context {
	if value == "" {
		return ctx
	}
	headers := map[string]string{name: value}
	for n, v := range headersOf(ctx) {
		if _, ok := headers[n]; !ok {
			headers[n] = v
		}
	}
	return context.WithValue(ctx, headersKey{}, headers)
}

// WithNonce makes the requests of a context those of the holder of a lease.
func WithNonce(ctx context.Context, nonce string) context.Context {
	return withHeader(ctx, apiv1.LeaseNonceHeader, nonce)
}

// WithIdempotencyKey makes a create of a context one that is carried out once, however often it is sent, for a day. A key is for one request.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return withHeader(ctx, apiv1.IdempotencyHeader, key)
}

// WithRequestID names the requests of a context in the server's log.
func WithRequestID(ctx context.Context, id string) context.Context {
	return withHeader(ctx, apiv1.RequestIDHeader, id)
}
