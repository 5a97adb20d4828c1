package client_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"drover"
	"drover/apiv1"
	"drover/client"
)

// Make a machine, wait until it runs, run a command in it, and follow what it writes.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	c, err := client.New(client.Config{BaseURL: os.Getenv("DROVER_API_URL"), Token: os.Getenv("DROVER_API_TOKEN")})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	m, err := c.CreateMachine(ctx, "ledger", apiv1.CreateMachineRequest{Name: "one", Config: drover.MachineConfig{Image: "debian:12"}})
	if drover.Is(err, drover.Exists) {
		m, err = c.FindMachine(ctx, "ledger", "one") // an earlier run of this program has made it
	}
	if err == nil {
		m, err = c.WaitMachine(ctx, "ledger", m.ID, drover.StateStarted, m.InstanceID)
	}
	if err != nil {
		fmt.Println(err, drover.AsError(err).Hint)
		return
	}
	cmd, err := c.Start(ctx, "ledger", m.ID, apiv1.ExecStreamRequest{Command: []string{"uname", "-a"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	exit, err := cmd.Run(ctx, nil, os.Stdout, os.Stderr)
	fmt.Println(exit.ExitCode, err)
	err = c.FollowLogs(ctx, "ledger", m.ID, client.LogsQuery{Tail: 10}, func(line drover.LogLine) error {
		fmt.Println(line.At, line.Text)
		return nil
	})
	fmt.Println(err) // the context has ended
}

// Change the image of all machines of an app, one after another, and follow it.
func ExampleClient_CreateDeploy() {
	ctx := context.Background()
	c, err := client.New(client.Config{BaseURL: "http://127.0.0.1:4280", Token: os.Getenv("DROVER_API_TOKEN")})
	if err != nil {
		fmt.Println(err)
		return
	}
	machines, err := c.Machines(ctx, "ledger")
	if err != nil {
		fmt.Println(err)
		return
	}
	req := apiv1.DeployRequest{Text: "ledger:2", MaxUnavailable: 1}
	for _, m := range machines {
		config := m.Config
		config.Image = "registry.example/ledger:2"
		req.Items = append(req.Items, apiv1.DeployItemRequest{Action: drover.DeployUpdate, Machine: m.ID, Config: &config})
	}
	d, err := c.CreateDeploy(ctx, "ledger", req)
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err = c.FollowDeploy(ctx, "ledger", d.ID, func(d apiv1.Deploy) error {
		fmt.Println(d.State, d.Waits)
		return nil
	})
	fmt.Println(d.State, d.Problem, err)
}
