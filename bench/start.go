package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"drover"
	"drover/apiv1"
	"drover/natsbus"
)

const (
	// startPairs is how many machines are started each way, startHosts on how many hosts.
	startPairs = 200
	startHosts = 3
)

// measureStart compares how long a machine takes from the request to the API until a client is told that it runs, with how long its host's agent takes
// for the same from the order on, in turn. The VMM is simulated and its machines run at once, so that what is left is Drover's own work; bus, control host,
// agents and their journals are real, and each write is synced to the disk of the temporary directory.
func measureStart(ctx context.Context, w *world) ([]result, error) {
	if err := w.hosts(ctx, startHosts); err != nil {
		return nil, err
	}
	if _, err := w.client.CreateApp(ctx, apiv1.CreateAppRequest{AppName: "web"}); err != nil {
		return nil, err
	}
	conn, err := natsbus.Connect(ctx, natsbus.Config{URLs: []string{w.server.ClientURL()}, Name: "c2", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	statuses, err := natsbus.OpenBucket[drover.MachineStatus](ctx, conn, natsbus.BucketStatus, natsbus.BucketOptions{})
	if err != nil {
		return nil, err
	}
	started := make(chan drover.MachineID, 4*startPairs)
	w.group.Go(func() error {
		return statuses.Watch(ctx, func(e natsbus.Entry[drover.MachineStatus]) error {
			if e.Value.State == drover.StateStarted {
				started <- e.Value.Machine
			}
			return nil
		})
	})
	var api, agent, over []float64
	for n := range startPairs {
		host := drover.HostID(fmt.Sprintf("sim%04d", n%startHosts))
		a, id, err := w.startByAPI(ctx)
		if err != nil {
			return nil, err
		}
		if err := waitStarted(ctx, started, id); err != nil {
			return nil, err
		}
		b, err := w.startByAgent(ctx, conn, host, started)
		if err != nil {
			return nil, err
		}
		api, agent, over = append(api, a), append(agent, b), append(over, a-b)
	}
	fmt.Fprintf(w.log, "a start by the API: p50 %.1f ms, p90 %.1f ms, p99 %.1f ms; by the agent alone: p50 %.1f ms, p90 %.1f ms, p99 %.1f ms\n",
		percentile(api, 50), percentile(api, 90), percentile(api, 99), percentile(agent, 50), percentile(agent, 90), percentile(agent, 99))
	return []result{
		compare("start.api", "ms", "lower", "the agent alone", api, agent),
		compare("start.added", "ms", "lower", "the goal", over, []float64{30}),
	}, nil
}

// startByAPI makes a machine as a client does, and returns after how many milliseconds the client knows that it runs.
func (w *world) startByAPI(ctx context.Context) (float64, drover.MachineID, error) {
	begun := time.Now()
	m, err := w.client.CreateMachine(ctx, "web", apiv1.CreateMachineRequest{Config: drover.MachineConfig{Image: "busybox"}})
	if err != nil {
		return 0, "", err
	}
	if _, err := w.get(ctx, fmt.Sprintf("/v1/apps/web/machines/%s/wait?state=started&timeout=60", m.ID)); err != nil {
		return 0, "", err
	}
	return float64(time.Since(begun).Microseconds()) / 1000, m.ID, nil
}

// startByAgent gives a host's agent the order to make a machine, and returns after how many milliseconds the agent has said that it runs.
func (w *world) startByAgent(ctx context.Context, conn *natsbus.Conn, host drover.HostID, started <-chan drover.MachineID) (float64, error) {
	now := time.Now()
	m := drover.Machine{ID: drover.NewMachineID(), App: "web", Name: "alone", Region: "sim", Instance: drover.NewInstanceID(), Goal: drover.GoalStarted, Run: 1,
		Config: drover.MachineConfig{Image: "busybox"}.WithDefaults(), CreatedAt: now, UpdatedAt: now, ScheduledAt: now,
		Image: drover.ImageRef{Repository: "busybox", Digest: "sha256:" + fmt.Sprintf("%064x", 1)}}
	begun := time.Now()
	var status drover.MachineStatus
	if err := natsbus.Order(ctx, conn, host, drover.OrderApply, drover.ApplyRequest{Machine: m, Epoch: 1}, &status); err != nil {
		return 0, err
	}
	if err := waitStarted(ctx, started, m.ID); err != nil {
		return 0, err
	}
	took := float64(time.Since(begun).Microseconds()) / 1000
	m.Goal, m.UpdatedAt = drover.GoalDestroyed, time.Now()
	return took, natsbus.Order(ctx, conn, host, drover.OrderApply, drover.ApplyRequest{Machine: m, Epoch: 1}, &status)
}

func waitStarted(ctx context.Context, started <-chan drover.MachineID, id drover.MachineID) error {
	limit := time.After(time.Minute)
	for {
		select {
		case got := <-started:
			if got == id {
				return nil
			}
		case <-limit:
			return fmt.Errorf("machine %q did not start within a minute", id)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
