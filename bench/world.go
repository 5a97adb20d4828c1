package main

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/api"
	"drover/bench/simhost"
	"drover/client"
	control "drover/fleet"
	"drover/internal/testkit"
	"drover/natsbus"
)

// world is a fleet in this process: an embedded bus, a control host with its API, and simulated hosts. What is measured of the control side alone has the
// hosts' share of the CPUs against it.
type world struct {
	setup
	server *natsbus.Server
	token  string
	api    *httptest.Server
	client *client.Client
	loop   *control.Fleet
	// transport keeps the connections of the tenant that keeps to itself.
	transport *http.Transport
	// end ends the control host.
	end   context.CancelFunc
	group errgroup.Group
}

// inWorld makes a bench of one that needs a world.
func inWorld(measure func(context.Context, *world) ([]result, error)) func(context.Context, setup) ([]result, error) {
	return func(ctx context.Context, s setup) (results []result, err error) {
		ctx, cancel := context.WithCancel(ctx)
		w, err := newWorld(ctx, s)
		if err != nil {
			cancel()
			return nil, err
		}
		defer func() {
			cancel()
			err = errors.Join(err, w.close())
		}()
		return measure(ctx, w)
	}
}

func newWorld(ctx context.Context, s setup) (*world, error) {
	w := &world{setup: s, token: "drv_" + rand.Text(), transport: &http.Transport{}}
	var err error
	w.server, err = natsbus.StartServer(natsbus.ServerConfig{Name: "c1", Host: "127.0.0.1", StoreDir: filepath.Join(s.dir, "bus"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	return w, w.begin(ctx)
}

// begin starts the control host, and returns when it answers.
func (w *world) begin(ctx context.Context) error {
	ctx, w.end = context.WithCancel(ctx)
	conn, err := natsbus.Connect(ctx, natsbus.Config{URLs: []string{w.server.ClientURL()}, Name: "c1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	w.loop, err = control.New(control.Config{Conn: conn, Host: "c1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	handler, err := api.New(api.Config{Backend: w.loop, Version: "bench", Limits: api.DefaultLimits()})
	if err != nil {
		return err
	}
	w.group.Go(func() error { return w.loop.Run(ctx) })
	w.api = httptest.NewServer(handler)
	w.client, err = client.New(client.Config{BaseURL: w.api.URL, Token: w.token})
	if err != nil {
		return err
	}
	return testkit.Eventually(ctx, 5*time.Minute, "the control host", func() (bool, error) {
		err := w.loop.PutToken(ctx, w.token, control.Principal{Name: "operator", Operator: true})
		if drover.Is(err, drover.Unavailable) {
			return false, nil // it reads the fleet's state
		}
		return err == nil, err
	})
}

func (w *world) close() error {
	w.transport.CloseIdleConnections()
	w.api.Close()
	err := w.group.Wait()
	w.server.Shutdown()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// hosts starts the simulated hosts and returns when all have joined.
func (w *world) hosts(ctx context.Context, count int) error {
	dir := filepath.Join(w.dir, "hosts")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	w.group.Go(func() error {
		return simhost.Run(ctx, simhost.Config{URL: w.server.ClientURL(), Dir: dir, Region: "sim", Memory: 256 * drover.GiB, CPUs: 64,
			Log: slog.New(slog.DiscardHandler)}, count)
	})
	return testkit.Eventually(ctx, 10*time.Minute, "all hosts", func() (bool, error) {
		list, err := w.client.Hosts(ctx)
		n := 0
		for _, h := range list {
			if h.Status == drover.HostOK {
				n++
			}
		}
		return err == nil && n >= count, err
	})
}
