package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/api"
	"drover/fleet"
	"drover/internal/durable"
	"drover/internal/fleetca"
	"drover/internal/hostconf"
	"drover/internal/sockets"
	"drover/natsbus"
	"drover/powercommand"
)

// The API server's bounds. There is no bound on writing: a wait may take a minute, an exec ten.
const (
	apiHeaderTimeout = 10 * time.Second
	apiIdleTimeout   = 2 * time.Minute
	apiStopTimeout   = 5 * time.Second
	maxHeader        = 64 << 10
)

// apiLimits says how often a client may ask.
func apiLimits(conf hostconf.API) api.Limits {
	limits := api.DefaultLimits()
	set := func(rate *api.Rate, perSecond float64) {
		switch {
		case perSecond < 0:
			*rate = api.Rate{}
		case perSecond > 0:
			*rate = api.Rate{PerSecond: perSecond}
		}
	}
	set(&limits.All, conf.Rate)
	set(&limits.Action, conf.ActionRate)
	set(&limits.Read, conf.ReadRate)
	set(&limits.Strangers, conf.StrangerRate)
	return limits
}

// serveControl is the control side: the embedded bus unless it is external, the fleet's loop, and the API.
func serveControl(ctx context.Context, p process) error {
	if err := durable.MkdirAll(p.conf.DataDir, 0o700); err != nil {
		return drover.Errorf(drover.Internal, "cannot make the directory %q: %w", p.conf.DataDir, err)
	}
	token, err := operatorToken(p.conf.API.TokenFile)
	if err != nil {
		return err
	}
	listener, err := listenAPI(p)
	if err != nil {
		return err
	}
	defer listener.Close()
	var server *natsbus.Server
	if !p.conf.Bus.External {
		if server, err = startBus(p); err != nil {
			return err
		}
		defer server.Shutdown()
	}
	conn, err := connectControlBus(ctx, p, server)
	if err != nil {
		return err
	}
	defer conn.Close()
	objects, err := newObjects(p.conf, conn, true)
	if err != nil {
		return err
	}
	traces, endTraces, err := newTraces(ctx, p)
	if err != nil {
		return err
	}
	defer endTraces()
	loop, err := fleet.New(tuned(fleet.Config{Conn: conn, Host: p.conf.ID, TLSDir: p.conf.TLSDir, Snapshots: fleet.NewSnapshotStore(objects), Log: p.log,
		Faults: p.faults, Clock: p.faults.Clock(), Traces: traces, GuestSizes: p.conf.GuestSizes}, p.conf))
	if err != nil {
		return err
	}
	handler, err := api.New(api.Config{Backend: loop, Log: p.log, Version: version(), Limits: apiLimits(p.conf.API),
		OpenMetrics: openMetrics(p.conf, listener.Addr())})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return loop.Run(ctx) })
	g.Go(func() error { return putToken(ctx, loop, token, p.log) })
	if onBus, ok := objects.(*natsbus.Objects); ok {
		g.Go(func() error { onBus.Ensure(ctx); return nil })
	}
	g.Go(func() error { return serveAPI(ctx, p.log, listener, handler) })
	return g.Wait()
}

// tuned adds what the host's configuration says of the fleet: the command that switches hosts off, and times.
func tuned(c fleet.Config, conf *hostconf.Config) fleet.Config {
	if len(conf.PowerOffCommand) > 0 {
		c.Power = powercommand.Command(conf.PowerOffCommand)
	}
	timing := fleet.DefaultTiming()
	timing.PowerOff = cmp.Or(time.Duration(conf.PowerOffAfter), timing.PowerOff)
	timing.KeepVolumes = cmp.Or(time.Duration(conf.VolumeKeep), timing.KeepVolumes)
	c.Timing = &timing
	return c
}

// connectControlBus connects to the bus with the rights of a control host: within the process, or with its certificate. A bus that is somebody
// else's may know no such certificates; it gives this host what it gives hosts.
func connectControlBus(ctx context.Context, p process, server *natsbus.Server) (*natsbus.Conn, error) {
	if server != nil {
		return connectBus(ctx, p, server)
	}
	config, err := fleetca.ControlClientConfig(p.conf.TLSDir, "")
	if drover.Is(err, drover.Precondition) {
		p.log.Warn("this host shows no certificate of a control host to the bus", "err", err)
		return connectBus(ctx, p, nil)
	}
	if err != nil {
		return nil, err
	}
	return natsbus.Connect(ctx, natsbus.Config{URLs: p.conf.Bus.URLs, Name: string(p.conf.ID), TLS: config, Log: p.log})
}

func startBus(p process) (*natsbus.Server, error) {
	host, portText, err := net.SplitHostPort(p.conf.Bus.Listen)
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "bus.listen: %w", err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "bus.listen: %q is not a port number", portText)
	}
	tlsConfig, err := fleetca.ServerConfig(p.conf.TLSDir)
	if err != nil {
		return nil, err
	}
	return natsbus.StartServer(natsbus.ServerConfig{
		Name: string(p.conf.ID), Host: host, Port: port, StoreDir: p.conf.Bus.Store, TLS: tlsConfig, Log: p.log,
	})
}

// operatorToken reads the operator's token, and makes one at the first start.
func operatorToken(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(data)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", drover.Errorf(drover.Internal, "cannot read the operator's token: %w", err)
	}
	b := make([]byte, 24)
	rand.Read(b) // never fails: crypto/rand aborts the process instead
	token := "drv_" + hex.EncodeToString(b)
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", drover.Errorf(drover.Internal, "cannot make the directory of the operator's token: %w", err)
	}
	if err := durable.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		return "", drover.Errorf(drover.Internal, "cannot write the operator's token: %w", err)
	}
	return token, nil
}

// putToken makes the operator's token known to the fleet, trying until the store answers. One that was revoked stays so.
func putToken(ctx context.Context, loop *fleet.Fleet, token string, log *slog.Logger) error {
	for {
		err := loop.PutToken(ctx, token, fleet.Principal{Name: "operator", Operator: true})
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if drover.Is(err, drover.Denied) {
			log.Error("the token in this control host's token file is not valid; another is made at a start without the file", "err", err)
			return nil
		}
		if !drover.Is(err, drover.Unavailable) {
			return err
		}
		select { // PutToken has waited itself; this keeps a store that refuses at once from being asked in a tight loop
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// listenAPI takes over the listener that the process was started with, or makes one.
func listenAPI(p process) (net.Listener, error) {
	l, err := sockets.Inherited(p.getenv)
	if err != nil {
		return nil, err
	}
	inherited := l != nil
	if !inherited {
		if l, err = net.Listen("tcp", p.conf.API.Listen); err != nil {
			return nil, drover.Errorf(drover.Unavailable, "cannot listen for the API: %w", err)
		}
	}
	p.log.Info("the API listens", "address", l.Addr().String(), "inherited", inherited)
	return l, nil
}

// serveAPI serves until ctx ends, then lets requests end for a moment.
func serveAPI(ctx context.Context, log *slog.Logger, l net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: apiHeaderTimeout,
		IdleTimeout:       apiIdleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), apiStopTimeout)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			server.Close()
		}
	})
	err := server.Serve(l)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return drover.Errorf(drover.Unavailable, "the API's server ended: %w", err)
}
