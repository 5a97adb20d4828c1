package api

import (
	"context"
	"net/http"

	"drover"
)

// NetworkBackend is what the API asks about the private networks.
type NetworkBackend interface {
	// CheckNetwork asks every host what it believes, and changes nothing.
	CheckNetwork(ctx context.Context) (drover.NetworkCheck, error)
	// ReleaseHost is refused with Precondition while the host is heard.
	ReleaseHost(ctx context.Context, host drover.HostID) (drover.HostIdentity, error)
}

func networkRoutes() []route {
	return []route{
		{method: "GET", path: "/operator/network", id: "Network_check", summary: "Compare what every host believes of where machines are with where they are",
			access: operators, status: http.StatusOK, response: drover.NetworkCheck{}, handle: (*handler).checkNetwork},
		{method: "DELETE", path: "/operator/hosts/{host_id}/identity", id: "Hosts_release", summary: "Let another host join with the name of one that is gone",
			access: operators, status: http.StatusOK, response: drover.HostIdentity{}, handle: (*handler).releaseHost},
	}
}

func (h *handler) checkNetwork(c *call) (any, error) { return h.backend.CheckNetwork(c.ctx()) }

func (h *handler) releaseHost(c *call) (any, error) {
	id, err := hostID(c)
	if err != nil {
		return nil, err
	}
	return h.backend.ReleaseHost(c.ctx(), id)
}
