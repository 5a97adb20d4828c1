package dev

import (
	"context"
	"strings"
	"testing"
	"time"

	"drover"
	"drover/internal/durable"
)

// What is missing when the time is over is told, also when the end of the time cut the last question short.
func TestAWorkerThatDoesNotComeIsNamed(t *testing.T) {
	f := &Fleet{p: paths(shortDir(t))}
	if err := durable.WriteJSON(f.p.api(), APIInfo{URL: "http://127.0.0.1:1"}, 0o600); err != nil {
		t.Fatal(err)
	}
	asked := false
	look := func(ctx context.Context) ([]drover.HostID, error) {
		if !asked {
			asked = true
			return []drover.HostID{"h2"}, nil
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	cfg := Config{Wait: apiPoll + time.Millisecond, Progress: func(string) {}}
	err := f.await(t.Context(), &Layout{Hosts: []HostSpec{{ID: "c1", Roles: []drover.Role{drover.RoleControl}}}}, cfg, look)
	if !drover.Is(err, drover.Unavailable) || !strings.Contains(err.Error(), "not registered") || !strings.Contains(err.Error(), "h2") {
		t.Fatal(err)
	}
}
