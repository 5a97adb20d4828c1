package api

import (
	"crypto/rand"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"drover"
	"drover/apiv1"
	"drover/fleet"
	"drover/waterfall"
)

// metricsPath is where Prometheus looks for metrics. It is beside the API, not in it: the answer is not JSON.
const metricsPath = "/metrics"

// metrics answers GET /metrics.
type metrics struct {
	h    *handler
	open bool
	// process has the metrics of this process.
	process *prometheus.Registry
}

func newMetrics(h *handler, open bool) *metrics {
	m := &metrics{h: h, open: open, process: prometheus.NewRegistry()}
	m.process.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// ServeHTTP lets in who may read metrics, counts, and answers in the text format. All numbers of one answer are of one moment.
func (m *metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	c := &call{w: w, r: r, id: rand.Text(), route: route{access: operators, need: need{action: drover.ActRead}}}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		m.h.respond(c, begun, nil, withStatus(http.StatusMethodNotAllowed, drover.Errorf(drover.Invalid, "%s is not allowed here; GET is", r.Method)))
		return
	}
	if !m.open {
		if err := m.h.admit(c); err != nil {
			m.h.respond(c, begun, nil, err)
			return
		}
	}
	numbers, err := m.h.backend.Metrics(c.ctx())
	if err != nil {
		m.h.respond(c, begun, nil, err)
		return
	}
	fleets := prometheus.NewRegistry()
	if err := fleets.Register(collector{numbers}); err != nil {
		m.h.respond(c, begun, nil, drover.Errorf(drover.Internal, "cannot write metrics: %w", err))
		return
	}
	w.Header().Set(apiv1.RequestIDHeader, c.id)
	promhttp.HandlerFor(prometheus.Gatherers{fleets, m.process}, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(m.h.log.Handler(), slog.LevelError)}).ServeHTTP(w, r)
	m.h.log.LogAttrs(c.ctx(), slog.LevelDebug, "metrics read", slog.String("request", c.id), slog.String("actor", c.principal.Name), slog.Duration("dur", time.Since(begun)))
}

// The metrics of the fleet. docs/WATERFALL.md describes each; a test holds both together.
var (
	descPhase = prometheus.NewDesc("drover_migration_phase_seconds", "How long the phases of migrations took that have ended, by the outcome of the migration.",
		[]string{"phase", "outcome"}, nil)
	descInterruption = prometheus.NewDesc("drover_migration_interruption_seconds", "How long machines executed nothing in migrations that have ended.", []string{"mode"}, nil)
	descMigrations   = prometheus.NewDesc("drover_migrations_total", "Migrations that have ended.", []string{"outcome"}, nil)
	descBytes        = prometheus.NewDesc("drover_migration_bytes_total", "What migrations copied that have ended.", nil, nil)
	descRunning      = prometheus.NewDesc("drover_migrations_running", "Migrations that have not ended, by the phase they are in.", []string{"phase"}, nil)
	descOldest       = prometheus.NewDesc("drover_migrations_running_oldest_seconds",
		"How long the migration has been in its phase that has been in it the longest; 0 when there is none.", []string{"phase"}, nil)
	descHosts      = prometheus.NewDesc("drover_hosts", "Hosts by status.", []string{"status"}, nil)
	descConditions = prometheus.NewDesc("drover_conditions", "Conditions that hold now, over all hosts.", []string{"code", "severity"}, nil)
	descTraces     = prometheus.NewDesc("drover_traces_total", "Traces of migrations by what became of them.", []string{"result"}, nil)
	descPending    = prometheus.NewDesc("drover_traces_pending", "Traces that wait to be exported; of the control host that drives the fleet.", nil, nil)
	descAudit      = prometheus.NewDesc("drover_audit_entries_total", "Entries of the audit trail by what became of them, in this process.", []string{"result"}, nil)
	descFailures   = prometheus.NewDesc("drover_trace_export_failures_total", "Tries to export a trace that failed, in this process.", nil, nil)
)

// collector writes one snapshot of the fleet's numbers.
type collector struct{ fleet.Metrics }

var _ prometheus.Collector = collector{}

// Describe lists what Collect writes.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descPhase, descInterruption, descMigrations, descBytes, descRunning, descOldest, descHosts, descConditions, descTraces,
		descPending, descFailures, descAudit} {
		ch <- d
	}
}

// Collect writes every series that there can be, zeroes too, so that a rate has something to begin at; but for conditions, of which there are only those
// that hold.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	c.histograms(ch)
	for _, o := range endings {
		counter(descMigrations, float64(c.Tally.Migrations[o]), string(o))
	}
	counter(descBytes, float64(c.Tally.Bytes))
	for _, p := range phasesOf(c.Metrics) {
		gauge(descRunning, float64(c.Running[p]), string(p))
		gauge(descOldest, c.Oldest[p].Seconds(), string(p))
	}
	statuses := map[drover.HostStatus]int{drover.HostOK: 0, drover.HostUnknown: 0, drover.HostUnreachable: 0}
	type condition struct {
		code     drover.ConditionCode
		severity drover.Severity
	}
	conditions := map[condition]int{}
	for _, host := range c.Hosts {
		statuses[hostStatus(host.Status)]++
		for _, found := range host.Conditions {
			conditions[condition{found.Code, found.Severity}]++
		}
	}
	for status, n := range statuses {
		gauge(descHosts, float64(n), string(status))
	}
	for found, n := range conditions {
		gauge(descConditions, float64(n), string(found.code), string(found.severity))
	}
	for _, result := range drover.TraceResults {
		counter(descTraces, float64(c.Tally.Traced[result]), string(result))
	}
	gauge(descPending, float64(c.Traces.Pending))
	counter(descFailures, float64(c.Traces.Failures))
	counter(descAudit, float64(c.Audit.Written), "written")
	counter(descAudit, float64(c.Audit.Dropped), "dropped")
	counter(descAudit, float64(c.Audit.Suppressed), "suppressed")
}

// endings are the outcomes of what has ended.
var endings = [...]drover.Outcome{drover.Succeeded, drover.Aborted}

func (c collector) histograms(ch chan<- prometheus.Metric) {
	write := func(d *prometheus.Desc, h waterfall.Histogram, labels ...string) {
		buckets := map[float64]uint64{}
		for bound, n := range h.Cumulative() {
			buckets[bound.Seconds()] = n
		}
		ch <- prometheus.MustNewConstHistogram(d, h.Count(), (time.Duration(h.SumMS) * time.Millisecond).Seconds(), buckets, labels...)
	}
	for _, p := range phasesOf(c.Metrics) {
		for _, o := range endings {
			write(descPhase, c.Tally.Phases[p][o], string(p), string(o))
		}
	}
	for _, mode := range waterfall.Modes() {
		write(descInterruption, c.Tally.Interruptions[mode], mode)
	}
}

// phasesOf are the phases that last, those first that every fleet has.
func phasesOf(m fleet.Metrics) []drover.Phase {
	known := map[drover.Phase]bool{drover.PhaseDone: true}
	var out []drover.Phase
	add := func(p drover.Phase) {
		if !known[p] {
			known[p] = true
			out = append(out, p)
		}
	}
	for _, p := range drover.Phases {
		add(p)
	}
	for p := range m.Tally.Phases {
		add(p)
	}
	for p := range m.Running {
		add(p)
	}
	return out
}
