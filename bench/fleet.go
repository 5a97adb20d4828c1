package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"drover"
	"drover/demo/image"
	"drover/internal/testkit"
)

// fleet is a development fleet with an app and the writer's image.
type fleet struct {
	cli    testkit.CLI
	layout string
	log    io.Writer
}

// raiseFleet brings a fleet up in the bench's directory.
func raiseFleet(ctx context.Context, s setup) (*fleet, error) {
	f := &fleet{cli: testkit.CLI{Bin: s.drover, Dir: filepath.Join(s.dir, "fleet"), Stderr: s.log}, layout: filepath.Join(s.dir, "image"), log: s.log}
	if err := f.cli.Run(ctx, s.log, "dev", "up", "--api-port", "0"); err != nil {
		return nil, errors.Join(err, f.close(ctx))
	}
	err := image.WriteLayout(f.layout, image.Spec{
		Programs: map[string]string{"writer": filepath.Join(filepath.Dir(s.drover), "writer")},
		Config:   v1.Config{Entrypoint: []string{"/writer"}, Env: []string{"PATH=/bin"}},
	})
	if err == nil {
		err = f.cli.Run(ctx, s.log, "app", "create", "bench")
	}
	if err != nil {
		return nil, errors.Join(err, f.close(ctx))
	}
	return f, nil
}

// close takes the fleet down, whatever became of ctx.
func (f *fleet) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return f.cli.Run(ctx, f.log, "dev", "down", "--purge")
}

// writer is a machine that runs the demo's writer, with its watch.
type writer struct {
	id    string
	fleet *fleet
	watch *testkit.Watch
	stop  func()
}

// startWriter makes a machine with a volume of the size, lets it fill fillMiB of it and waits for that.
func (f *fleet) startWriter(ctx context.Context, name, host string, sizeGiB, fillMiB int, args ...string) (*writer, error) {
	var volume, machine struct {
		ID string `json:"id"`
	}
	if err := f.cli.Ask(ctx, &volume, "volume", "create", name, "--app", "bench", "--host", host, "--size", fmt.Sprintf("%dGiB", sizeGiB)); err != nil {
		return nil, err
	}
	create := append([]string{"machine", "create", "oci:" + f.layout, "--app", "bench", "--name", name, "--region", "ams", "--memory", "128",
		"--volume", volume.ID + ":/data", "--", "run", "-fill", strconv.Itoa(fillMiB)}, args...)
	if err := f.cli.Ask(ctx, &machine, create...); err != nil {
		return nil, err
	}
	w := &writer{id: machine.ID, fleet: f, watch: testkit.NewWatch(f.cli.Dir, machine.ID)}
	watching, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.watch.Run(watching)
	}()
	w.stop = func() { cancel(); <-done }
	err := testkit.Eventually(ctx, 5*time.Minute, "the fill of "+name, func() (bool, error) {
		now := w.watch.Now()
		return now.Filled >= uint64(fillMiB)<<20/4096 && now.Acked > 0, now.Err
	})
	if err != nil {
		w.stop()
		return nil, err
	}
	return w, nil
}

// interruption does something that ends the machine's run and returns the longest time without an acknowledged record, up to
// the first one of the next run.
func (w *writer) interruption(ctx context.Context, act func() error) (time.Duration, error) {
	before := w.watch.Now().Boot
	w.watch.ResetGap()
	if err := act(); err != nil {
		return 0, err
	}
	err := testkit.Eventually(ctx, time.Minute, "the machine's return", func() (bool, error) {
		now := w.watch.Now()
		return now.Boot != before, now.Err
	})
	return w.watch.Now().Gap, err
}

// move moves the machine to the host and waits until every block is there.
func (w *writer) move(ctx context.Context, to string) (time.Duration, drover.Migration, error) {
	var m drover.Migration
	gap, err := w.interruption(ctx, func() error {
		return w.fleet.cli.Ask(ctx, &m, "machine", "move", w.id, "--to", to, "--switch", "early")
	})
	if err == nil && m.Outcome != drover.Succeeded {
		err = fmt.Errorf("migration %s ended as %s", m.ID, m.Outcome)
	}
	return gap, m, err
}

func (w *writer) restart(ctx context.Context) (time.Duration, error) {
	return w.interruption(ctx, func() error { return w.fleet.cli.Ask(ctx, nil, "machine", "restart", w.id) })
}
