package apiv1

import (
	"encoding/json"
	"time"

	"drover"
)

// Release is one deployment of an app, in the form that clients of the Machines API read.
type Release struct {
	ID      drover.ReleaseID `json:"id"`
	Version int              `json:"version"`
	// Stable: it is complete. InProgress: it has not ended.
	Stable      bool                 `json:"stable"`
	InProgress  bool                 `json:"in_progress"`
	Status      drover.ReleaseStatus `json:"status"`
	Strategy    string               `json:"strategy"`
	Description string               `json:"description"`
	User        string               `json:"user"`
	ImageRef    string               `json:"image_ref"`
	CreatedAt   time.Time            `json:"created_at"`
	UpdatedAt   time.Time            `json:"updated_at"`
}

// ReleaseResponse is the answer of the creation of a release, ReleasesResponse that of a list, newest first.
type (
	ReleaseResponse struct {
		Release Release `json:"release"`
	}
	ReleasesResponse struct {
		Releases []Release `json:"releases"`
	}
)

// CreateReleaseRequest begins a release.
type CreateReleaseRequest struct {
	AppName     string          `json:"app_name"`
	Image       string          `json:"image,omitempty"`
	Strategy    string          `json:"strategy,omitempty"`
	Description string          `json:"description,omitempty"`
	Definition  json.RawMessage `json:"definition,omitempty"`
}

// UpdateReleaseRequest says how a release goes.
type UpdateReleaseRequest struct {
	Status   string          `json:"status"`
	Metadata json.RawMessage `json:"metadata,omitempty"`
}

// BuildRequest begins or ends the build of an image.
type BuildRequest struct {
	AppName string `json:"app_name"`
	BuildID int64  `json:"build_id,omitempty"`
	Status  string `json:"status,omitempty"`
}

// Build is the answer. No build is recorded: its number only has to be one.
type Build struct {
	ID              int64  `json:"id"`
	Status          string `json:"status"`
	WallclockTimeMS int    `json:"wallclock_time_ms"`
}

// WebOrganization is an organisation in the form of the web API.
type WebOrganization struct {
	ID                string `json:"id"`
	InternalNumericID uint64 `json:"internal_numeric_id"`
	Slug              string `json:"slug"`
	RawSlug           string `json:"raw_slug"`
	Name              string `json:"name"`
	PaidPlan          bool   `json:"paid_plan"`
	Personal          bool   `json:"personal"`
	BillingStatus     string `json:"billing_status"`
	Billable          bool   `json:"billable"`
}

// LogPage is a page of the logs of an app.
type LogPage struct {
	Data []LogEntry `json:"data"`
	Meta LogMeta    `json:"meta"`
}

// LogMeta says where the next page begins.
type LogMeta struct {
	NextToken string `json:"next_token"`
}

// LogEntry is one line.
type LogEntry struct {
	ID         string        `json:"id"`
	Type       string        `json:"type"`
	Attributes LogAttributes `json:"attributes"`
}

// LogAttributes is what there is to tell of a line.
type LogAttributes struct {
	Timestamp time.Time        `json:"timestamp"`
	Message   string           `json:"message"`
	Level     string           `json:"level"`
	Instance  drover.MachineID `json:"instance"`
	Region    drover.Region    `json:"region"`
	Meta      LogLineMeta      `json:"meta"`
}

// LogLineMeta says where a line came from.
type LogLineMeta struct {
	Instance drover.MachineID `json:"instance"`
	Region   drover.Region    `json:"region"`
	Event    struct {
		Provider string `json:"provider"`
	} `json:"event"`
	// Stream is stdout or stderr.
	Stream string `json:"stream"`
}
