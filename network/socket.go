package network

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"drover"
)

// socketWait bounds one question to the network of the same host; maxAnswer its answer.
const (
	socketWait = 5 * time.Second
	maxAnswer  = 16 << 20
)

// serve answers the agent of the same host.
func (d *Daemon) serve(ctx context.Context) error {
	path := SocketPath(d.cfg.RunDir)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return drover.Errorf(drover.Internal, "cannot take away the socket of an earlier process: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot listen on %q: %w", path, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { d.answer(w, d.Status()) })
	mux.HandleFunc("GET /routes", func(w http.ResponseWriter, r *http.Request) {
		after, err := netip.ParseAddr(r.FormValue("after"))
		if err != nil {
			after = netip.Addr{} // from the beginning
		}
		d.answer(w, d.Routes(after))
	})
	mux.HandleFunc("GET /peers", func(w http.ResponseWriter, _ *http.Request) {
		peers, err := d.Peers()
		if err != nil {
			d.cfg.Log.Warn("what was seen of peers cannot be told", "err", err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		d.answer(w, peers)
	})
	mux.HandleFunc("POST /rotate", ordered(d, func(req drover.MeshRotateRequest) (drover.MeshKey, error) { return d.Rotate(req.By, req.People) }))
	mux.HandleFunc("POST /cancel", ordered(d, func(req drover.MeshCancelRequest) (drover.MeshKey, error) { return d.Cancel(req.By) }))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: socketWait}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); ctx.Err() == nil {
		return drover.Errorf(drover.Internal, "cannot serve %q: %w", path, err)
	}
	return nil
}

// ordered answers what changes the key.
func ordered[T any](d *Daemon, do func(T) (drover.MeshKey, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req T
		if err := json.NewDecoder(io.LimitReader(r.Body, maxAnswer)).Decode(&req); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		key, err := do(req)
		if err != nil {
			d.cfg.Log.Warn("the key of this host stays as it is", "asked", r.URL.Path, "err", err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		d.answer(w, key)
	}
}

func (d *Daemon) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		d.cfg.Log.Debug("an answer to the agent was cut short", "err", err)
	}
}

// Client asks the network process of the same host. Unavailable when it does not answer.
type Client struct{ http *http.Client }

// NewClient makes a client for the process with the run directory.
func NewClient(runDir string) *Client {
	path := SocketPath(runDir)
	return &Client{&http.Client{Timeout: socketWait, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}}
}

// Status asks how the network is.
func (c *Client) Status(ctx context.Context) (s drover.MeshStatus, err error) {
	return s, c.get(ctx, "/status", &s)
}

// Peers asks what was seen of people's peers.
func (c *Client) Peers(ctx context.Context) (a drover.MeshPeersAnswer, err error) {
	return a, c.get(ctx, "/peers", &a)
}

// Routes asks for the table that packets follow, after an address; empty for the beginning.
func (c *Client) Routes(ctx context.Context, after string) (a drover.MeshRoutesAnswer, err error) {
	return a, c.get(ctx, "/routes?after="+url.QueryEscape(after), &a)
}

// Rotate lets the host get another key; while it is getting one, that is what is told of.
func (c *Client) Rotate(ctx context.Context, req drover.MeshRotateRequest) (key drover.MeshKey, err error) {
	return key, c.order(ctx, "/rotate", req, &key)
}

// Cancel lets the host keep the key that it has.
func (c *Client) Cancel(ctx context.Context, req drover.MeshCancelRequest) (key drover.MeshKey, err error) {
	return key, c.order(ctx, "/cancel", req, &key)
}

func (c *Client) order(ctx context.Context, path string, req any, into *drover.MeshKey) error {
	body, err := json.Marshal(req)
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot ask this host's network: %w", err)
	}
	return c.ask(ctx, http.MethodPost, path, body, into)
}

func (c *Client) get(ctx context.Context, path string, into any) error {
	return c.ask(ctx, http.MethodGet, path, nil, into)
}

func (c *Client) ask(ctx context.Context, method, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://mesh"+path, bytes.NewReader(body))
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot ask this host's network: %w", err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return drover.Errorf(drover.Unavailable, "this host's network does not answer: %w", err).
			WithHint("it is another process of the host: drover serve mesh, with the same configuration")
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
		return cmp.Or(err, error(drover.Errorf(drover.Precondition, "%s", strings.TrimSpace(string(text)))))
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(into); err != nil {
		return drover.Errorf(drover.Unavailable, "this host's network does not answer well: %w", err)
	}
	return nil
}
