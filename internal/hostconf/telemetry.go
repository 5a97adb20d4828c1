package hostconf

import (
	"net/url"
	"slices"
)

// Telemetry says what a control host tells of the fleet, and where.
type Telemetry struct {
	// OTLPEndpoint is where the traces of migrations go, by OTLP over HTTP: an address without the path of a signal, such as http://10.0.0.9:4318. Default: what
	// the standard variables say (OTEL_EXPORTER_OTLP_ENDPOINT); without them no traces are exported.
	OTLPEndpoint string `json:"otlp_endpoint,omitempty"`
	// Metrics is who may read GET /metrics: "operators", who have an operator's token, "open" for everybody who can reach the API, or "auto", the default,
	// for open where the API listens on loopback only.
	Metrics string `json:"metrics,omitempty"`
}

// The values of Telemetry.Metrics.
const (
	MetricsAuto      = "auto"
	MetricsOperators = "operators"
	MetricsOpen      = "open"
)

// checkTelemetry reports every mistake.
func (c *Config) checkTelemetry(wrong func(ok bool, format string, args ...any)) {
	if at := c.Telemetry.OTLPEndpoint; at != "" {
		u, err := url.Parse(at)
		wrong(err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == "",
			"telemetry.otlp_endpoint: it is not an address such as http://10.0.0.9:4318") // not quoted: a secret may be in it by mistake
	}
	wrong(slices.Contains([]string{"", MetricsAuto, MetricsOperators, MetricsOpen}, c.Telemetry.Metrics), "telemetry.metrics: %q is not %s, %s or %s",
		c.Telemetry.Metrics, MetricsAuto, MetricsOperators, MetricsOpen)
}
