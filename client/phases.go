package client

import (
	"context"
	"net/url"
	"time"

	"drover"
	"drover/apiv1"
)

// PhasesQuery selects migrations. Since 0 is all that are kept; empty names are all apps and all hosts.
type PhasesQuery struct {
	Since time.Duration
	App   drover.AppName
	Host  drover.HostID
}

// Phases sums up how long the phases of the fleet's migrations took. Operators only.
func (c *Client) Phases(ctx context.Context, q PhasesQuery) (apiv1.PhaseReport, error) {
	query := url.Values{"since": {q.Since.String()}}
	if q.App != "" {
		query.Set("app", string(q.App))
	}
	if q.Host != "" {
		query.Set("host", string(q.Host))
	}
	return get[apiv1.PhaseReport](ctx, c, query, "/operator/migrations/phases")
}
