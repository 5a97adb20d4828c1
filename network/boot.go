package network

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"drover"
	"drover/internal/durable"
)

const (
	// begunEvery is how often an agent looks whether it may begin, begunPatience after what time it says that it waits.
	begunEvery    = 50 * time.Millisecond
	begunPatience = 10 * time.Second
)

// bootRecord says of which boot of the host a run directory is: that is on tmpfs, so it outlives processes and not the host, and is in no copy of a data directory.
type bootRecord struct {
	ID string `json:"id"`
	// Begun: the fleet has let this boot in, or could not be asked.
	Begun bool `json:"begun"`
}

func bootPath(runDir string) string { return filepath.Join(runDir, "mesh-boot.json") }

// loadBoot reads it, or begins a new one.
func loadBoot(runDir string) (b bootRecord, err error) {
	err = durable.ReadJSON(bootPath(runDir), &b)
	if errors.Is(err, fs.ErrNotExist) {
		b = bootRecord{ID: rand.Text()}
		err = b.store(runDir)
	}
	if err != nil {
		return b, drover.Errorf(drover.Internal, "cannot find out of which boot the directory %q is: %w", runDir, err)
	}
	return b, nil
}

// AwaitBegun returns when the fleet has let this boot of the host in, or cannot be asked; the host's network, which asks, runs in another process. Conflict when
// another host has its name or its key. Until it returns nothing may be done in this host's name: of a copy of a host that runs, machines would run twice.
func AwaitBegun(ctx context.Context, runDir string, log *slog.Logger) error {
	client := NewClient(runDir)
	defer client.http.CloseIdleConnections()
	for begun, said := time.Now(), false; ; pause(ctx, begunEvery) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var b bootRecord
		err := durable.ReadJSON(bootPath(runDir), &b)
		if err == nil && b.Begun {
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return drover.Errorf(drover.Internal, "cannot find out whether this host has joined the fleet: %w", err)
		}
		s, err := client.Status(ctx)
		switch {
		case err == nil && s.NameTaken:
			return drover.Errorf(drover.Conflict, "%s", s.Problem)
		case err == nil && s.Mesh != nil: // a network of before there were boots
			return nil
		case err != nil:
			s.Problem = err.Error()
		}
		if !said && time.Since(begun) > begunPatience {
			said = true
			log.Warn("the agent does nothing before this host has joined the fleet", "problem", s.Problem)
		}
	}
}

// setBegun notes whether the network may begin, now and whenever a process of this boot starts.
func (b *bootRecord) setBegun(runDir string, begun bool) error {
	if b.Begun == begun {
		return nil
	}
	next := *b
	next.Begun = begun
	if err := next.store(runDir); err != nil {
		return drover.Errorf(drover.Internal, "cannot note whether this host may begin: %w", err)
	}
	*b = next
	return nil
}

func (b bootRecord) store(runDir string) error { return durable.WriteJSON(bootPath(runDir), b, 0o600) }
