package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"

	"drover"
	"drover/apiv1"
	"drover/internal/frames"
	"drover/internal/framesws"
)

// StreamBackend runs commands whose input and output are streams.
type StreamBackend interface {
	// ExecStream starts a command in a machine. Closing the stream hangs up on it.
	ExecStream(ctx context.Context, app drover.AppName, req drover.ExecStreamRequest) (frames.Conn, error)
}

// requestWait is how long a client may take to send the request after it has connected.
const requestWait = 10 * time.Second

func streamRoutes() []route {
	const machine = "/apps/{app_name}/machines/{machine_id}"
	return []route{
		{method: "GET", path: machine + "/exec/stream", id: "Machines_exec_stream", access: tenants,
			summary: "Run a command in a started machine over a WebSocket: its terminal, or its input and output",
			status:  http.StatusSwitchingProtocols, response: apiv1.ExecStreamAnswer{}, handle: (*handler).execStream},
	}
}

// execStream runs a command for as long as its client is there. What is wrong before the WebSocket is one is answered as by every route; later, as
// the stream's last frame.
func (h *handler) execStream(c *call) (any, error) {
	view, err := h.machine(c)
	if err != nil {
		return nil, err
	}
	if !websocketAsked(c.r) {
		return nil, drover.Errorf(drover.Invalid, "this is a WebSocket; the request does not ask for one").WithHint("POST …/exec answers without")
	}
	ws, err := websocket.Accept(c.w, c.r, &websocket.AcceptOptions{Subprotocols: []string{framesws.Protocol}, CompressionMode: websocket.CompressionDisabled})
	c.answered = true // by the library, refusals too
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "no WebSocket was begun: %w", err)
	}
	client := framesws.New(c.ctx(), ws)
	defer client.Close() // it may be closed
	guest, err := h.startStream(c, client, view.Machine.ID)
	if err != nil {
		_ = client.Send(c.ctx(), frames.NewFail(err)) // a client that has left needs no answer
		return nil, err
	}
	if err := frames.Relay(c.ctx(), client, guest); err != nil && !frames.Left(err) {
		return nil, err
	}
	return nil, nil
}

func websocketAsked(r *http.Request) bool {
	return r.ProtoMajor == 1 && headerHas(r.Header, "Connection", "upgrade") && headerHas(r.Header, "Upgrade", "websocket")
}

// startStream reads the request and starts the command.
func (h *handler) startStream(c *call, client *framesws.Conn, id drover.MachineID) (frames.Conn, error) {
	ctx, cancel := context.WithTimeout(c.ctx(), requestWait)
	defer cancel()
	data, err := client.ReceiveRequest(ctx)
	if err != nil {
		return nil, err
	}
	var req apiv1.ExecStreamRequest
	if err := json.Unmarshal(data, &req); err != nil {
		return nil, drover.Errorf(drover.Invalid, "cannot read the request: %w", err)
	}
	order := drover.ExecStreamRequest{Machine: id, Command: req.Command, Env: req.Env, Terminal: req.Terminal, Size: req.Size,
		Timeout: time.Duration(req.Timeout) * time.Second}
	if err := order.Validate(); err != nil {
		return nil, err
	}
	return h.backend.ExecStream(c.ctx(), c.app.Name, order)
}

// headerHas tells whether a header has a word in its list.
func headerHas(h http.Header, name, word string) bool {
	for _, value := range h.Values(name) {
		for part := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(part), word) {
				return true
			}
		}
	}
	return false
}
