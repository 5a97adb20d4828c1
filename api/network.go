package api

import (
	"context"
	"net/http"

	"drover"
	"drover/apiv1"
)

// NetworkBackend is what the API asks about the private networks.
type NetworkBackend interface {
	// CheckNetwork asks every host what it believes, and changes nothing.
	CheckNetwork(ctx context.Context) (drover.NetworkCheck, error)
	// ReleaseHost is refused with Precondition while the host is heard.
	ReleaseHost(ctx context.Context, host drover.HostID) (drover.HostIdentity, error)
	// RotateKey lets a host get another key; while it is getting one, that is what is told of.
	RotateKey(ctx context.Context, host drover.HostID, by string, people bool) (drover.MeshKey, error)
	// CancelKey lets a host keep the key that it has. Precondition when it is about to have no other.
	CancelKey(ctx context.Context, host drover.HostID, by string) (drover.MeshKey, error)
	// HostKey asks a host about its key, and changes nothing.
	HostKey(ctx context.Context, host drover.HostID) (drover.MeshKey, error)
}

func networkRoutes() []route {
	return []route{
		{method: "GET", path: "/operator/network", id: "Network_check", summary: "Compare what every host believes of where machines are with where they are",
			access: operators, status: http.StatusOK, response: drover.NetworkCheck{}, handle: (*handler).checkNetwork},
		{method: "DELETE", path: "/operator/hosts/{host_id}/identity", id: "Hosts_release", summary: "Let another host join with the name of one that is gone",
			access: operators, status: http.StatusOK, response: drover.HostIdentity{}, handle: (*handler).releaseHost},
		{method: "GET", path: "/operator/hosts/{host_id}/key", id: "Hosts_key", summary: "Tell by which key other hosts know a host, and what becomes of it",
			access: operators, status: http.StatusOK, response: drover.MeshKey{}, handle: (*handler).hostKey},
		{method: "POST", path: "/operator/hosts/{host_id}/key/rotate", id: "Hosts_rotate_key", summary: "Let a host get another key, without a packet being lost",
			access: operators, request: apiv1.RotateKeyRequest{}, status: http.StatusOK, response: drover.MeshKey{}, handle: (*handler).rotateKey},
		{method: "POST", path: "/operator/hosts/{host_id}/key/cancel", id: "Hosts_cancel_key", summary: "Let a host keep the key that it has, and take back the one that it was to get",
			access: operators, status: http.StatusOK, response: drover.MeshKey{}, handle: (*handler).cancelKey},
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

func (h *handler) hostKey(c *call) (any, error) {
	id, err := hostID(c)
	if err != nil {
		return nil, err
	}
	return h.backend.HostKey(c.ctx(), id)
}

func (h *handler) rotateKey(c *call) (any, error) {
	id, err := hostID(c)
	if err != nil {
		return nil, err
	}
	var req apiv1.RotateKeyRequest
	if err := readStrict(c.w, c.r, &req, true); err != nil {
		return nil, err
	}
	return h.backend.RotateKey(c.ctx(), id, c.principal.Name, req.People)
}

func (h *handler) cancelKey(c *call) (any, error) {
	id, err := hostID(c)
	if err != nil {
		return nil, err
	}
	return h.backend.CancelKey(c.ctx(), id, c.principal.Name)
}
