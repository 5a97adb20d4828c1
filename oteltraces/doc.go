// Package oteltraces sends spans to an OpenTelemetry receiver by OTLP over HTTP, with the OpenTelemetry SDK.
//
// It gives spans the IDs that they have, so that what is sent twice is the same, and it does not try again: whoever has the spans knows when to. It never
// samples and never batches; one call is one request.
package oteltraces
