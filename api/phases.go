package api

import (
	"net/http"
	"time"

	"drover"
	"drover/apiv1"
	"drover/waterfall"
)

// The bounds of the parameter since: the default, and the most, which is longer than migrations are kept.
const (
	phasesSince     = 24 * time.Hour
	mostPhasesSince = 366 * 24 * time.Hour
)

// waterfallRoutes are those that sum migrations up.
func waterfallRoutes() []route {
	return []route{
		{method: "GET", path: "/operator/migrations/phases", id: "Migrations_phases", summary: "Sum up how long the phases of the fleet's migrations took",
			access: operators, query: []param{{"since", "string", "how far back to look, by when migrations ended; default 24h, 0s for all that are kept"},
				{"app", "string", "only machines of the app"}, {"host", "string", "only moves from or to the host"}},
			status: http.StatusOK, response: apiv1.PhaseReport{}, handle: (*handler).migrationPhases},
	}
}

func (h *handler) migrationPhases(c *call) (any, error) {
	q := c.r.URL.Query()
	since, err := queryDuration(q, "since", mostPhasesSince)
	if err != nil {
		return nil, err
	}
	if q.Get("since") == "" {
		since = phasesSince
	}
	for _, name := range []string{"app", "host"} {
		if err := needName(name, q.Get(name), true); err != nil {
			return nil, err
		}
	}
	migrations, err := h.backend.Migrations(c.ctx())
	if err != nil {
		return nil, err
	}
	return waterfall.Phases(migrations, waterfall.Filter{Since: since, App: drover.AppName(q.Get("app")), Host: drover.HostID(q.Get("host"))}, h.now()), nil
}
