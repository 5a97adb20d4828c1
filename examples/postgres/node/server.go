package main

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// listen answers Drover's health check and the other members until ctx ends.
func (n *node) listen(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", n.serveHealth)
	mux.HandleFunc("GET /state", n.serveState)
	for what, do := range map[string]func(context.Context, []byte) (string, error){
		"promote":  func(ctx context.Context, _ []byte) (string, error) { return n.promote(ctx) },
		"handover": func(ctx context.Context, _ []byte) (string, error) { return n.handover(ctx) },
		"grant":    n.serveGrant,
		"follow": func(context.Context, []byte) (string, error) {
			n.look()
			return "it looks who the primary is", nil
		},
	} {
		mux.HandleFunc("POST /"+what, n.ordered(do))
	}
	listener, err := net.Listen("tcp", ":"+strconv.Itoa(nodePort))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() }) // what is under way ends with the machine
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ordered lets members of the cluster give an order, and nobody else.
func (n *node) ordered(do func(context.Context, []byte) (string, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+n.cfg.token())) != 1 {
			http.Error(w, "the token is not that of this cluster", http.StatusForbidden)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		// An order goes on when who gave it is gone: half a change of the primary is none.
		text, err := do(context.WithoutCancel(r.Context()), body)
		if err != nil {
			n.log.Warn("order is not carried out", "order", r.URL.Path, "err", err)
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		fmt.Fprintln(w, text)
	}
}

func (n *node) serveState(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(n.now()); err != nil {
		n.log.Debug("state is not told", "err", err)
	}
}

// serveHealth is for Drover's check: a primary is healthy when it takes writes, a replica when it streams. The header tells the role to drains.
func (n *node) serveHealth(w http.ResponseWriter, _ *http.Request) {
	s := n.now()
	if s.Role != "" {
		w.Header().Set("Drover-Role", string(s.Role))
	}
	if s.Role == "" || s.Problem != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintf(w, "%s timeline %d up to %X; follows %q, streams: %v; problem: %q\n", s.Role, s.Timeline, s.LSN, s.Upstream, s.Streaming, s.Problem)
}
