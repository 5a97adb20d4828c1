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
	Network      string         `json:"network,omitempty"`
	// Status is "deployed" while the app has machines, else "pending".
	Status       string    `json:"status"`
	MachineCount int       `json:"machine_count"`
	VolumeCount  int       `json:"volume_count"`
	CreatedAt    time.Time `json:"created_at"`
	// Metadata are the app's labels, which count for its machines.
	Metadata map[string]string `json:"metadata,omitempty"`
	// Recovery is "automatic" when the app's machines are started elsewhere without asking, once their host is fenced; else "ask".
	Recovery string `json:"recovery"`
}

// Organization owns apps.
type Organization struct {
	Name string `json:"name"`
	Slug string `json:"slug"`
}

// ListApp is an app in a list.
type ListApp struct {
	ID           drover.AppName `json:"id"`
	Name         drover.AppName `json:"name"`
	Organization Organization   `json:"organization"`
	Status       string         `json:"status"`
	MachineCount int            `json:"machine_count"`
	VolumeCount  int            `json:"volume_count"`
	CreatedAt    time.Time      `json:"created_at"`
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
