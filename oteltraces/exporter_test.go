package oteltraces

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"drover"
	"drover/waterfall"
)

// receiver is an OTLP receiver: it decodes what it is sent with the official messages.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	status   int
	requests []*collector.ExportTraceServiceRequest
	headers  []http.Header
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{status: http.StatusOK}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, err := io.ReadAll(req.Body)
	if err == nil && req.Header.Get("Content-Encoding") == "gzip" {
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(body)); err == nil {
			body, err = io.ReadAll(z)
		}
	}
	var message collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &message)
	}
	if err != nil || req.URL.Path != "/v1/traces" || req.Method != http.MethodPost || req.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, "what is this", http.StatusBadRequest)
		return
	}
	r.requests, r.headers = append(r.requests, &message), append(r.headers, req.Header)
	if r.status != http.StatusOK {
		http.Error(w, "not now", r.status)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	answer, err := proto.Marshal(&collector.ExportTraceServiceResponse{})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if _, err := w.Write(answer); err != nil {
		return // the client is gone
	}
}

// spans are all that were sent, by name.
func (r *receiver) spans() (byName map[string]*otlp.Span, resources map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	byName, resources = map[string]*otlp.Span{}, map[string]string{}
	for _, request := range r.requests {
		for _, rs := range request.ResourceSpans {
			for _, a := range rs.Resource.Attributes {
				resources[a.Key] = a.Value.GetStringValue()
			}
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					byName[s.Name] = s
				}
			}
		}
	}
	return byName, resources
}

func exporter(t *testing.T, endpoint string) *Exporter {
	t.Helper()
	e, err := New(t.Context(), Config{Endpoint: endpoint, Version: "1.2.3", Instance: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return e
}

func moved() drover.Migration {
	begun := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return begun.Add(time.Duration(s) * time.Second) }
	return drover.Migration{ID: "mig_6f1c0a53e9b2d784", Machine: "3d8d9c2b7e0a15", App: "ledger", Source: "h1", Target: "h2", Outcome: drover.Aborted,
		Problem: drover.Errorf(drover.Exhausted, "h2 is full"), CreatedAt: at(0), UpdatedAt: at(9),
		Steps: []drover.Step{{Phase: drover.PhaseReserve, StartedAt: at(0), EndedAt: at(1), Tries: 1,
			Orders: []drover.StepOrder{{Order: drover.OrderMoveReserve, Host: "h2", StartedAt: at(0), EndedAt: at(1)}}},
			{Phase: drover.PhaseExport, StartedAt: at(1), EndedAt: at(9), Tries: 3, Bytes: 42, Waits: []drover.Wait{{From: at(2), Until: at(8), For: "h2 is away"}}}}}
}

// TestAReceiverGetsTheTrace: what arrives at a receiver that reads OTLP is the trace as it was made, with its own IDs.
func TestAReceiverGetsTheTrace(t *testing.T) {
	r := newReceiver(t)
	e := exporter(t, r.URL)
	m := moved()
	spans := waterfall.Trace(m, "")
	for range 2 { // again is the same
		if err := e.ExportTrace(t.Context(), spans); err != nil {
			t.Fatal(err)
		}
	}
	got, resources := r.spans()
	if resources["service.name"] != "drover" || resources["service.version"] != "1.2.3" || resources["service.instance.id"] != "c1" {
		t.Errorf("%v", resources)
	}
	if len(r.requests) != 2 || len(got) != 4 || !proto.Equal(r.requests[0].ResourceSpans[0].ScopeSpans[0], r.requests[1].ResourceSpans[0].ScopeSpans[0]) {
		t.Fatalf("%d requests, spans %v", len(r.requests), got)
	}
	for i, s := range spans {
		found := got[s.Name]
		want := [4]string{string(s.Trace), string(s.ID), string(s.Parent), s.Start.String() + s.End.String()}
		is := [4]string{hex.EncodeToString(found.TraceId), hex.EncodeToString(found.SpanId), hex.EncodeToString(found.ParentSpanId),
			time.Unix(0, int64(found.StartTimeUnixNano)).UTC().String() + time.Unix(0, int64(found.EndTimeUnixNano)).UTC().String()}
		if diff := cmp.Diff(want, is); diff != "" {
			t.Errorf("span %d, %s: %s", i, s.Name, diff)
		}
	}
	root, export, wait := got["migration"], got["export"], got["wait"]
	if hex.EncodeToString(root.TraceId) != string(drover.TraceOf(string(m.ID))) || root.Status.Code != otlp.Status_STATUS_CODE_ERROR || root.Status.Message != "h2 is full" {
		t.Errorf("%v", root)
	}
	values := map[string]any{}
	for _, a := range append(root.Attributes, export.Attributes...) {
		values[a.Key] = a.Value.GetStringValue()
		if a.Value.GetStringValue() == "" {
			values[a.Key] = a.Value.GetIntValue()
		}
	}
	for key, want := range map[string]any{"drover.machine": "3d8d9c2b7e0a15", "drover.app": "ledger", "drover.source": "h1", "drover.target": "h2",
		"drover.outcome": "aborted", "drover.tries": int64(3), "drover.bytes": int64(42)} {
		if values[key] != want {
			t.Errorf("%s is %v, want %v", key, values[key], want)
		}
	}
	if events := got["reserve"].Events; len(events) != 1 || events[0].Name != "move.reserve" || events[0].Attributes[0].Value.GetStringValue() != "h2" {
		t.Errorf("%v", events)
	}
	if !bytes.Equal(wait.ParentSpanId, export.SpanId) || !bytes.Equal(export.ParentSpanId, root.SpanId) || len(root.ParentSpanId) != 0 {
		t.Error("the spans do not hang together")
	}
}

// TestAMigrationIsInTheTraceOfWhatAskedForIt: then its first span has a parent that is not its own.
func TestAMigrationIsInTheTraceOfWhatAskedForIt(t *testing.T) {
	r := newReceiver(t)
	if err := exporter(t, r.URL+"/").ExportTrace(t.Context(), waterfall.Trace(moved(), "drn_1")); err != nil {
		t.Fatal(err)
	}
	got, _ := r.spans()
	for name, s := range got {
		if hex.EncodeToString(s.TraceId) != string(drover.TraceOf("drn_1")) {
			t.Errorf("%s is in another trace", name)
		}
	}
	if hex.EncodeToString(got["migration"].ParentSpanId) != string(drover.SpanOf("drn_1")) {
		t.Errorf("%v", got["migration"])
	}
}

func TestWhatIsNotTakenIsAnError(t *testing.T) {
	r := newReceiver(t)
	e := exporter(t, r.URL)
	for _, status := range []int{400, 401, 429, 500, 503} {
		r.mu.Lock()
		r.status, r.requests = status, nil
		r.mu.Unlock()
		if err := e.ExportTrace(t.Context(), waterfall.Trace(moved(), "")); !drover.Is(err, drover.Unavailable) {
			t.Errorf("%d: %v", status, err)
		}
		if len(r.requests) != 1 {
			t.Errorf("%d: tried %d times", status, len(r.requests))
		}
	}
	r.Close()
	if err := e.ExportTrace(t.Context(), waterfall.Trace(moved(), "")); !drover.Is(err, drover.Unavailable) {
		t.Error(err)
	}
	if err := e.ExportTrace(t.Context(), []drover.Span{{Trace: "x", ID: "y"}}); !drover.Is(err, drover.Internal) {
		t.Error(err)
	}
}

func TestEndpoints(t *testing.T) {
	for _, bad := range []string{"127.0.0.1:4318", "ftp://h", "http://", "http://user:pass@h:4318", "http://h?x=1", "http://h#x", "::"} {
		if ValidEndpoint(bad) {
			t.Errorf("%q is taken", bad)
		}
		if _, err := New(t.Context(), Config{Endpoint: bad}); !drover.Is(err, drover.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, c := range []struct {
		endpoint string
		env      map[string]string
		want     bool
	}{
		{"", nil, false}, {"http://h:4318", nil, true}, {"", map[string]string{envEndpoint: "http://h"}, true}, {"", map[string]string{envTracesEndpoint: "http://h/x"}, true},
		{"http://h", map[string]string{envDisabled: "TRUE"}, false}, {"http://h", map[string]string{envTracesExporter: "none"}, false},
	} {
		if got := Wanted(c.endpoint, func(name string) string { return c.env[name] }); got != c.want {
			t.Errorf("%q with %v: %v", c.endpoint, c.env, got)
		}
	}
}

// TestStandardVariables: the variables of OpenTelemetry's specification say where to, with which headers, and by which name.
func TestStandardVariables(t *testing.T) {
	r := newReceiver(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", r.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-scope=ams")
	t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
	t.Setenv("OTEL_SERVICE_NAME", "fleet-a")
	if err := exporter(t, "").ExportTrace(t.Context(), waterfall.Trace(moved(), "")); err != nil {
		t.Fatal(err)
	}
	_, resources := r.spans()
	if resources["service.name"] != "fleet-a" || resources["deployment.environment"] != "test" || r.headers[0].Get("x-scope") != "ams" {
		t.Errorf("%v %v", resources, r.headers)
	}
}
