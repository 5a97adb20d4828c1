package drover

import (
	"encoding/json"
	"slices"
	"time"
)

// Release is the record of one deployment of an app, kept by whoever deploys: Drover gives it a number and remembers it, and does nothing for it.
type Release struct {
	ID  ReleaseID `json:"id"`
	App AppName   `json:"app"`
	// Version counts the app's releases, from 1 on.
	Version int           `json:"version"`
	Status  ReleaseStatus `json:"status"`
	// Strategy, Image and Definition are what the client said. Definition is its description of the app, a JSON object.
	Strategy    string          `json:"strategy,omitempty"`
	Image       string          `json:"image,omitempty"`
	Definition  json.RawMessage `json:"definition,omitempty"`
	Description string          `json:"description,omitempty"`
	// Actor began it.
	Actor string `json:"actor"`
	// Metadata is what the client said of how it went, a JSON object.
	Metadata  json.RawMessage `json:"metadata,omitempty"`
	CreatedAt time.Time       `json:"created_at"`
	UpdatedAt time.Time       `json:"updated_at"`
}

// ReleaseStatus is how far a release is, as its client says.
type ReleaseStatus string

// The statuses of a release. Nothing but the client that began it changes them: one that died leaves its release running.
const (
	ReleasePending     ReleaseStatus = "pending"
	ReleaseRunning     ReleaseStatus = "running"
	ReleaseComplete    ReleaseStatus = "complete"
	ReleaseFailed      ReleaseStatus = "failed"
	ReleaseInterrupted ReleaseStatus = "interrupted"
)

// ReleaseStatuses lists them.
func ReleaseStatuses() []ReleaseStatus {
	return []ReleaseStatus{ReleasePending, ReleaseRunning, ReleaseComplete, ReleaseFailed, ReleaseInterrupted}
}

// Valid reports whether it is one of them.
func (s ReleaseStatus) Valid() bool { return slices.Contains(ReleaseStatuses(), s) }

// ResolvedImage is an image that was looked up: what it is pinned to, and how much there is to fetch.
type ResolvedImage struct {
	ImageRef
	// CompressedSize is that of its layers as they are stored, in bytes.
	CompressedSize Bytes `json:"compressed_size"`
}
