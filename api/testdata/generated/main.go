// Command generated uses the API by a client that was generated from the document that the API serves. It prints what it found as JSON; a surprise ends it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"

	"drover-test-clients/client"
)

// found is what is printed.
type found struct {
	Machine, Volume, State, Stdout, Unknown, Refusal string
	Machines                                         int
}

func main() {
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, url, token string) error {
	c, err := client.NewClientWithResponses(url+"/v1", client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+token)
		return nil
	}))
	if err != nil {
		return err
	}
	name := "generated"
	app, err := c.AppsCreateWithResponse(ctx, client.CreateAppRequest{AppName: &name})
	if err != nil || app.JSON201 == nil {
		return fmt.Errorf("app: %v, %s", err, app.Body)
	}
	size := 2
	volume, err := c.VolumesCreateWithResponse(ctx, name, client.CreateVolumeRequest{Name: &name, SizeGb: &size})
	if err != nil || volume.JSON200 == nil {
		return fmt.Errorf("volume: %v, %s", err, volume.Body)
	}
	config := client.MachineConfig{Image: "debian", Env: &map[string]string{"A": "b"}, Mounts: &[]client.Mount{{Volume: volume.JSON200.Id, Path: "/data"}},
		AdditionalProperties: map[string]any{"not_known": "kept"}}
	machine, err := c.MachinesCreateWithResponse(ctx, name, nil, client.CreateMachineRequest{Name: &name, Config: config})
	if err != nil || machine.JSON200 == nil {
		return fmt.Errorf("machine: %v, %s", err, machine.Body)
	}
	id := machine.JSON200.Id
	wait, err := c.MachinesWaitWithResponse(ctx, name, id, &client.MachinesWaitParams{})
	if err != nil || wait.JSON200 == nil {
		return fmt.Errorf("wait: %v, %s", err, wait.Body)
	}
	exec, err := c.MachinesExecWithResponse(ctx, name, id, client.ExecRequest{Command: &[]string{"echo", "hello"}})
	if err != nil || exec.JSON200 == nil {
		return fmt.Errorf("exec: %v, %s", err, exec.Body)
	}
	shown, err := c.MachinesShowWithResponse(ctx, name, id)
	if err != nil || shown.JSON200 == nil {
		return fmt.Errorf("show: %v, %s", err, shown.Body)
	}
	list, err := c.MachinesListWithResponse(ctx, name, &client.MachinesListParams{})
	if err != nil || list.JSON200 == nil {
		return fmt.Errorf("list: %v, %s", err, list.Body)
	}
	refused, err := c.MachinesCreateWithResponse(ctx, name, nil, client.CreateMachineRequest{Config: client.MachineConfig{Image: "missing"}})
	if err != nil || refused.JSON404 == nil {
		return fmt.Errorf("an image that does not exist: %v, %s", err, refused.Body)
	}
	unknown, _ := shown.JSON200.Config.AdditionalProperties["not_known"].(string)
	return json.NewEncoder(os.Stdout).Encode(found{Machine: id, Volume: volume.JSON200.Id, State: string(shown.JSON200.State), Stdout: exec.JSON200.Stdout,
		Unknown: unknown, Refusal: refused.JSON404.Error, Machines: len(*list.JSON200)})
}
