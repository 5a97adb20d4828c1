package natsbus

import (
	"context"
	"encoding/json"
	"fmt"

	"drover"
)

// requestOwned is what a host asks by whether the machines that it has are its own still.
const requestOwned = "owned"

// ownedRequest names what a host has, with the epochs that it knows.
type ownedRequest struct {
	Host     drover.HostID                     `json:"host"`
	Machines map[drover.MachineID]drover.Epoch `json:"machines"`
}

// Doubted asks a control host about the machines that this host has, and returns those that are not the host's at this epoch as far as that control host
// knows, which may be old news: Placement tells for certain. Unavailable when none answers.
func (h *HostBus) Doubted(ctx context.Context, has map[drover.MachineID]drover.Epoch) (doubted []drover.MachineID, err error) {
	data, err := json.Marshal(ownedRequest{Host: h.host, Machines: has})
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot ask about the machines of host %q: %w", h.host, err)
	}
	body, err := h.conn.askAt(ctx, controlSubject(requestOwned), "control", requestOwned, data)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, &doubted); err != nil {
		return nil, drover.Errorf(drover.Internal, "what a control host says of the machines of host %q cannot be read: %w", h.host, err)
	}
	return doubted, nil
}

// ServeOwned answers Doubted until ctx ends. Of several control hosts one gets each request.
func ServeOwned(ctx context.Context, conn *Conn, doubted func(host drover.HostID, has map[drover.MachineID]drover.Epoch) []drover.MachineID) error {
	return conn.serveAt(ctx, controlSubject(requestOwned), "control", "control", requestOwned, func(_ context.Context, data []byte) (any, error) {
		var req ownedRequest
		if err := json.Unmarshal(data, &req); err != nil {
			return nil, fmt.Errorf("the request %q cannot be read: %w", requestOwned, err)
		}
		return doubted(req.Host, req.Machines), nil
	})
}
