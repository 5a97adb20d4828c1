package test

import (
	"bufio"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"drover"
	"drover/apiv1"
)

// scrape reads one series of the control host's metrics, as Prometheus does: over HTTP, without a token, for the API listens on loopback.
func scrape(series string) (value float64, err error) {
	data, err := os.ReadFile(filepath.Join(fleet.cli.Dir, "api.json"))
	if err != nil {
		return 0, err
	}
	var api struct {
		URL string `json:"url"`
	}
	if err := json.Unmarshal(data, &api); err != nil {
		return 0, err
	}
	answer, err := http.Get(api.URL + "/metrics")
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("status %s", answer.Status)
	}
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), series+" "); ok {
			return strconv.ParseFloat(text, 64)
		}
	}
	return 0, fmt.Errorf("no series %s: %w", series, lines.Err())
}

// TestMovesAreCountedAndDrawn: a move is in the metrics when it has ended, the death of the control host takes nothing of that away, and it can be drawn
// and summed up.
func TestMovesAreCountedAndDrawn(t *testing.T) {
	const succeeded, started = `drover_migrations_total{outcome="succeeded"}`, `drover_migration_phase_seconds_count{outcome="succeeded",phase="start"}`
	app := newApp(t)
	m := shell(t, app, "exec sleep 100000")
	before, err := scrape(succeeded)
	if err != nil {
		t.Fatal(err)
	}
	to := "h2"
	if m.Host == "h2" {
		to = "h1"
	}
	run(t, "machine", "move", string(m.ID), "--to", to)
	eventually(t, boundMove, "the move is counted", func() bool {
		got, err := scrape(succeeded)
		return err == nil && got == before+1
	})
	phases, err := scrape(started)
	if err != nil {
		t.Fatal(err)
	}
	run(t, "dev", "kill", "c1")
	run(t, "dev", "start", "c1")
	eventually(t, boundBoot, "the control side counts again", func() bool {
		_, err := scrape(succeeded)
		return err == nil
	})
	for series, least := range map[string]float64{succeeded: before + 1, started: phases} {
		if got, err := scrape(series); err != nil || got != least {
			t.Errorf("%s is %v after the control host died, and was %v (%v)", series, got, least, err)
		}
	}

	moves := ask[[]apiv1.Migration](t, "migration", "list", "--machine", string(m.ID))
	if len(moves) != 1 {
		t.Fatalf("%d migrations", len(moves))
	}
	for _, args := range [][]string{{"migration", "show", string(moves[0].ID), "--svg", "-"}, {"migration", "waterfall", "--app", app, "--svg", "-"}} {
		svg := run(t, args...)
		decoder := xml.NewDecoder(strings.NewReader(svg))
		for err = nil; err == nil; {
			_, err = decoder.Token()
		}
		if err != io.EOF || !strings.Contains(svg, string(moves[0].ID)) || !strings.Contains(svg, "interrupted") {
			t.Errorf("%v: %s", err, svg)
		}
	}
	report := ask[apiv1.PhaseReport](t, "migration", "phases", "--app", app)
	interruptions := 0
	if moves[0].InterruptionMS != nil { // not on a host so slow that all data has followed before the machine has booted
		interruptions = 1
	}
	if report.Migrations != 1 || report.Interruption.Count != interruptions || len(report.Phases) < len(drover.Phases)-2 || report.Slowest == "" {
		t.Errorf("%+v", report)
	}
	for _, s := range moves[0].Steps {
		if s.Phase != drover.PhaseDone && s.Phase != drover.PhaseHydrate && len(s.Orders) == 0 {
			t.Errorf("phase %s has no orders", s.Phase)
		}
	}
}
