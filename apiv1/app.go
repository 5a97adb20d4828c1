package apiv1

import (
	"time"

	"drover"
)

// App is one app.
type App struct {
	// ID is the app's name: the name is its identity.
	ID           drover.AppName `json:"id"`
	Name         drover.AppName `json:"name"`
	Organization Organization   `json:"organization"`
	// InternalNumericID is a number for clients that want one beside the name. Nothing is found by it.
	InternalNumericID uint64 `json:"internal_numeric_id"`
	// Network is the private network that the app's machines share with the others that name it; empty for the organization's default.
	Network string `json:"network"`
	// Status is "deployed" while the app has machines, else "pending"; "destroyed" while it can be brought back, then "wiping".
	Status       string    `json:"status"`
	MachineCount int       `json:"machine_count"`
	VolumeCount  int       `json:"volume_count"`
	CreatedAt    time.Time `json:"created_at"`
	// Metadata are the app's labels, which count for its machines.
	Metadata map[string]string `json:"metadata,omitempty"`
	// Recovery is "automatic" when the app's machines are started elsewhere without asking, once their host is fenced; else "ask".
	Recovery string `json:"recovery"`
	AppEnd
}

// AppEnd is what an app that was destroyed says besides; all of it is left out of one that was not.
type AppEnd struct {
	DestroyedAt time.Time `json:"destroyed_at,omitzero"`
	DestroyedBy string    `json:"destroyed_by,omitempty"`
	// WipeAt is until when POST /v1/apps/{app_name}/undelete brings it back.
	WipeAt time.Time `json:"wipe_at,omitzero"`
	// Wiping: it is being cleared away, and cannot be brought back.
	Wiping bool `json:"wiping,omitempty"`
	// WaitsFor are the hosts that do not answer and have something of it: while there are any, it is not gone.
	WaitsFor []drover.HostID `json:"waits_for,omitempty"`
}

// DestroyedApp is the answer of DELETE /v1/apps/{app_name}.
type DestroyedApp struct {
	OK   bool           `json:"ok"`
	Name drover.AppName `json:"name"`
	// Gone: nothing is left of it, and its name is free.
	Gone bool `json:"gone"`
	AppEnd
}

// Organization owns apps.
type Organization struct {
	Name string `json:"name"`
	Slug string `json:"slug"`
	// InternalNumericID is a number for clients that want one beside the name. Nothing is found by it.
	InternalNumericID uint64 `json:"internal_numeric_id"`
}

// ListApp is an app in a list. What has the name of a member of App is the same.
type ListApp struct {
	ID                drover.AppName `json:"id"`
	Name              drover.AppName `json:"name"`
	Organization      Organization   `json:"organization"`
	InternalNumericID uint64         `json:"internal_numeric_id"`
	Status            string         `json:"status"`
	MachineCount      int            `json:"machine_count"`
	VolumeCount       int            `json:"volume_count"`
	CreatedAt         time.Time      `json:"created_at"`
	AppEnd
}

// ListAppsResponse is the answer of GET /v1/apps.
type ListAppsResponse struct {
	Apps      []ListApp `json:"apps"`
	TotalApps int       `json:"total_apps"`
}

// CreateAppRequest asks for an app. Clients name it in app_name or in name.
type CreateAppRequest struct {
	AppName string `json:"app_name,omitempty"`
	Name    string `json:"name,omitempty"`
	// OrgSlug is the organisation; that of the token when empty.
	OrgSlug string `json:"org_slug,omitempty"`
	Network string `json:"network,omitempty"`
}
