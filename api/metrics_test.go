package api_test

import (
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"drover"
	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
)

// scrape reads /metrics as Prometheus does.
func scrape(t *testing.T, s *server, token string) map[string]*dto.MetricFamily {
	t.Helper()
	r := httptest.NewRequest("GET", "/metrics", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain; version=0.0.4") || w.Header().Get(apiv1.RequestIDHeader) == "" {
		t.Fatalf("%d %v\n%s", w.Code, w.Header(), w.Body)
	}
	problems, err := promlint.New(strings.NewReader(w.Body.String())).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// series finds the one with the labels, given as name, value, name, value.
func series(t *testing.T, families map[string]*dto.MetricFamily, name string, labels ...string) *dto.Metric {
	t.Helper()
	for _, m := range families[name].GetMetric() {
		fits := len(m.GetLabel()) == len(labels)/2
		for _, l := range m.GetLabel() {
			for i := 0; i < len(labels); i += 2 {
				if l.GetName() == labels[i] {
					fits = fits && l.GetValue() == labels[i+1]
				}
			}
		}
		if fits {
			return m
		}
	}
	t.Fatalf("no series %s%v in %v", name, labels, families[name])
	return nil
}

func TestMetricsCountMigrations(t *testing.T) {
	b := apitest.New()
	begun := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	b.ChangeMigration("mig_1", func(m *drover.Migration) {
		m.Source, m.Target, m.Outcome, m.Phase, m.StoppedAt, m.RunningAt = "h1", "h2", drover.Succeeded, drover.PhaseDone, begun, begun.Add(3*time.Second)
		m.Steps = []drover.Step{{Phase: drover.PhaseStart, StartedAt: begun, EndedAt: begun.Add(3 * time.Second), Bytes: 100, Tries: 1}}
	})
	b.ChangeMigration("mig_2", func(m *drover.Migration) {
		m.Source, m.Target, m.Outcome, m.Phase = "h1", "h2", drover.Running, drover.PhaseHydrate
	})
	b.ChangeHosts(func(hosts []drover.HostInfo) []drover.HostInfo {
		hosts[1].Status = drover.HostUnreachable
		hosts[0].Conditions = []drover.Condition{{Code: drover.PoolFull, Severity: drover.SeverityCritical, Text: "x"}}
		return hosts
	})
	families := scrape(t, newServer(t, api.Config{Backend: b, OpenMetrics: true}), "")
	h := series(t, families, "drover_migration_phase_seconds", "phase", "start", "outcome", "succeeded").GetHistogram()
	if h.GetSampleCount() != 1 || h.GetSampleSum() != 3 {
		t.Errorf("%v", h)
	}
	for _, bucket := range h.GetBucket() {
		if bound := bucket.GetUpperBound(); (bound >= 3) != (bucket.GetCumulativeCount() == 1) {
			t.Errorf("%v", bucket)
		}
	}
	if n := series(t, families, "drover_migration_phase_seconds", "phase", "reserve", "outcome", "aborted").GetHistogram().GetSampleCount(); n != 0 {
		t.Error(n)
	}
	if n := series(t, families, "drover_migration_interruption_seconds", "mode", "cold").GetHistogram().GetSampleSum(); n != 3 {
		t.Error(n)
	}
	for _, c := range []struct {
		value float64
		got   *dto.Metric
	}{
		{1, series(t, families, "drover_migrations_total", "outcome", "succeeded")}, {0, series(t, families, "drover_migrations_total", "outcome", "aborted")},
		{100, series(t, families, "drover_migration_bytes_total")}, {1, series(t, families, "drover_migrations_running", "phase", "hydrate")},
		{0, series(t, families, "drover_migrations_running", "phase", "reserve")}, {1, series(t, families, "drover_hosts", "status", "ok")},
		{1, series(t, families, "drover_hosts", "status", "unreachable")}, {1, series(t, families, "drover_conditions", "code", "pool-full", "severity", "critical")},
		{0, series(t, families, "drover_traces_total", "result", "dropped")},
	} {
		if got := c.got.GetCounter().GetValue() + c.got.GetGauge().GetValue(); got != c.value {
			t.Errorf("%v is %v, want %v", c.got, got, c.value)
		}
	}
	if families["go_goroutines"] == nil || families["process_start_time_seconds"] == nil {
		t.Error("the process has no metrics")
	}
}

func TestMetricsAreForOperators(t *testing.T) {
	b := apitest.New()
	s := newServer(t, api.Config{Backend: b})
	scrape(t, s, apitest.OperatorToken)
	for token, status := range map[string]int{"": 401, "wrong": 401, apitest.AcmeToken: 403} {
		r := httptest.NewRequest("GET", "/metrics", nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		if w.Code != status || strings.Contains(w.Body.String(), "drover_") {
			t.Errorf("%q: %d %s", token, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, httptest.NewRequest("POST", "/metrics", nil))
	if w.Code != 405 || w.Header().Get("Allow") == "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	b.Fail = func(method string) error {
		if method == "Metrics" {
			return drover.Errorf(drover.Unavailable, "not ready")
		}
		return nil
	}
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Authorization", "Bearer "+apitest.OperatorToken)
	w = httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	if w.Code < 400 || decode[apiv1.ErrorResponse](t, w).Code != drover.Unavailable {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestEveryMetricIsDescribed holds docs/WATERFALL.md against what there is.
func TestEveryMetricIsDescribed(t *testing.T) {
	text, err := os.ReadFile("../docs/WATERFALL.md")
	if err != nil {
		t.Fatal(err)
	}
	b := apitest.New()
	b.ChangeHosts(func(hosts []drover.HostInfo) []drover.HostInfo {
		hosts[0].Conditions = []drover.Condition{{Code: drover.PoolFull, Severity: drover.SeverityCritical}}
		return hosts
	})
	families := scrape(t, newServer(t, api.Config{Backend: b, OpenMetrics: true}), "")
	described := map[string]bool{}
	for _, match := range regexp.MustCompile("(?m)^\\| `(drover_[a-z_]+)").FindAllStringSubmatch(string(text), -1) {
		described[match[1]] = true
		if families[match[1]] == nil {
			t.Errorf("%s is described, and is not there", match[1])
		}
	}
	for name := range families {
		if strings.HasPrefix(name, "drover_") && !described[name] {
			t.Errorf("%s is not described", name)
		}
	}
}
