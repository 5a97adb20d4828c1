package dev

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"
)

// Bounds of the forward proxy.
const (
	egressDialTimeout = 15 * time.Second
	egressIdle        = 90 * time.Second
	maxTunnels        = 256
)

// egress is an HTTP forward proxy: hosts reach registries through it, because their network leads nowhere else. It is reachable from
// the fleet's bridge only and dials as the rack, in the machine's network.
type egress struct {
	server  *http.Server
	proxy   *httputil.ReverseProxy
	dialer  net.Dialer
	tunnels sync.WaitGroup
	slots   chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{}
}

func startEgress(ctx context.Context, l net.Listener, log *slog.Logger) *egress {
	e := &egress{dialer: net.Dialer{Timeout: egressDialTimeout}, slots: make(chan struct{}, maxTunnels), done: make(chan struct{})}
	e.ctx, e.cancel = context.WithCancel(ctx)
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: e.dialer.DialContext, IdleConnTimeout: egressIdle, DisableCompression: true,
	}
	e.proxy = &httputil.ReverseProxy{
		Rewrite:   func(*httputil.ProxyRequest) {}, // a forward proxy's request names its target itself
		Transport: transport,
		ErrorLog:  slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	e.server = &http.Server{Handler: e, ReadHeaderTimeout: egressDialTimeout, IdleTimeout: egressIdle, ErrorLog: e.proxy.ErrorLog}
	go func() {
		defer close(e.done)
		if err := e.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the fleet's forward proxy ended", "err", err)
		}
	}()
	return e
}

func (e *egress) close() {
	e.cancel()
	e.server.Close()
	<-e.done
	e.tunnels.Wait()
}

func (e *egress) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect {
		e.connect(w, r)
		return
	}
	if !r.URL.IsAbs() {
		http.Error(w, "this is a forward proxy", http.StatusBadRequest)
		return
	}
	e.proxy.ServeHTTP(w, r)
}

// connect makes a tunnel (RFC 9110, 9.3.6).
func (e *egress) connect(w http.ResponseWriter, r *http.Request) {
	select {
	case e.slots <- struct{}{}:
	default:
		http.Error(w, "too many tunnels", http.StatusServiceUnavailable)
		return
	}
	e.tunnels.Add(1)
	defer func() { <-e.slots; e.tunnels.Done() }()
	far, err := e.dialer.DialContext(r.Context(), "tcp", r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer far.Close()
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer near.Close()
	if _, err := io.WriteString(near, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	stop := context.AfterFunc(e.ctx, func() { near.Close(); far.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { pump(far, buffered) })
	both.Go(func() { pump(near, far) })
	both.Wait()
}

// pump copies one direction of a tunnel and then tells the other side that no more comes.
func pump(to net.Conn, from io.Reader) {
	_, err := io.Copy(to, from)
	if half, ok := to.(*net.TCPConn); ok && err == nil {
		half.CloseWrite()
		return
	}
	to.Close()
}
