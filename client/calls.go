package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"drover"
	"drover/apiv1"
)

const (
	machinePath   = "/apps/%s/machines/%s"
	migrationPath = "/operator/migrations/%s"
)

// Health asks whether the API answers.
func (c *Client) Health(ctx context.Context) (apiv1.Health, error) {
	return get[apiv1.Health](ctx, c, nil, "/healthz")
}

// Apps lists the apps that the token may see, by name; those of one organisation when org is not empty.
func (c *Client) Apps(ctx context.Context, org string) ([]apiv1.ListApp, error) {
	query := url.Values{}
	if org != "" {
		query.Set("org_slug", org)
	}
	list, err := get[apiv1.ListAppsResponse](ctx, c, query, "/apps")
	return list.Apps, err
}

// App returns one app.
func (c *Client) App(ctx context.Context, name drover.AppName) (apiv1.App, error) {
	return get[apiv1.App](ctx, c, nil, "/apps/%s", name)
}

// CreateApp makes an app. Exists when the name is taken.
func (c *Client) CreateApp(ctx context.Context, req apiv1.CreateAppRequest) (apiv1.App, error) {
	return post[apiv1.App](ctx, c, req, "/apps")
}

// DestroyApp destroys an app with all that it has. One with volumes can be brought back for a time, which now gives up.
func (c *Client) DestroyApp(ctx context.Context, name drover.AppName, now bool) (apiv1.DestroyedApp, error) {
	var query url.Values
	if now {
		query = url.Values{"now": {"true"}}
	}
	return remove[apiv1.DestroyedApp](ctx, c, query, "/apps/%s", name)
}

// UndeleteApp brings a destroyed app back. Precondition when it was not destroyed, or is being wiped.
func (c *Client) UndeleteApp(ctx context.Context, name drover.AppName) (apiv1.App, error) {
	return post[apiv1.App](ctx, c, nil, "/apps/%s/undelete", name)
}

// DestroyedApps lists the apps that were destroyed and are not gone, the newest first; of one organization, if it is not empty.
func (c *Client) DestroyedApps(ctx context.Context, org string) ([]apiv1.ListApp, error) {
	query := url.Values{"deleted": {"true"}}
	if org != "" {
		query.Set("org_slug", org)
	}
	list, err := get[apiv1.ListAppsResponse](ctx, c, query, "/apps")
	return list.Apps, err
}

// Machines lists an app's machines, oldest first.
func (c *Client) Machines(ctx context.Context, app drover.AppName) ([]apiv1.Machine, error) {
	return get[[]apiv1.Machine](ctx, c, nil, "/apps/%s/machines", app)
}

// Machine returns one machine.
func (c *Client) Machine(ctx context.Context, app drover.AppName, id drover.MachineID) (apiv1.Machine, error) {
	return get[apiv1.Machine](ctx, c, nil, machinePath, app, id)
}

// CreateMachine makes a machine. It returns before the machine has started: see WaitMachine.
func (c *Client) CreateMachine(ctx context.Context, app drover.AppName, req apiv1.CreateMachineRequest) (apiv1.Machine, error) {
	return post[apiv1.Machine](ctx, c, req, "/apps/%s/machines", app)
}

// UpdateMachine replaces a machine's config.
func (c *Client) UpdateMachine(ctx context.Context, app drover.AppName, id drover.MachineID, req apiv1.UpdateMachineRequest) (apiv1.Machine, error) {
	return post[apiv1.Machine](ctx, c, req, machinePath, app, id)
}

// StartMachine asks for a start; it does not wait for it.
func (c *Client) StartMachine(ctx context.Context, app drover.AppName, id drover.MachineID) (apiv1.StartResult, error) {
	return post[apiv1.StartResult](ctx, c, nil, machinePath+"/start", app, id)
}

// StopMachine asks for a stop; it does not wait for it. Zero values of the request leave what the config says.
func (c *Client) StopMachine(ctx context.Context, app drover.AppName, id drover.MachineID, req apiv1.StopRequest) error {
	_, err := post[apiv1.OK](ctx, c, req, machinePath+"/stop", app, id)
	return err
}

// RestartMachine asks for a stop and a start; it does not wait for them. Zero values of how leave what the config says.
func (c *Client) RestartMachine(ctx context.Context, app drover.AppName, id drover.MachineID, how RestartOptions) error {
	return c.do(ctx, http.MethodPost, pathOf(machinePath+"/restart", []any{app, id}), how.query(), nil, nil)
}

// SuspendMachine asks for a suspension; it does not wait for it. Precondition for a machine that does not run.
func (c *Client) SuspendMachine(ctx context.Context, app drover.AppName, id drover.MachineID) error {
	_, err := post[apiv1.OK](ctx, c, nil, machinePath+"/suspend", app, id)
	return err
}

// DestroyMachine destroys a machine. Precondition for a running one unless forced.
func (c *Client) DestroyMachine(ctx context.Context, app drover.AppName, id drover.MachineID, force bool) error {
	query := url.Values{}
	if force {
		query.Set("force", "true")
	}
	_, err := remove[apiv1.OK](ctx, c, query, machinePath, app, id)
	return err
}

// Exec runs a command beside the machine's main process and waits for its end.
func (c *Client) Exec(ctx context.Context, app drover.AppName, id drover.MachineID, req apiv1.ExecRequest) (apiv1.ExecResult, error) {
	return post[apiv1.ExecResult](ctx, c, req, machinePath+"/exec", app, id)
}

// Signal sends the main process a signal, by name or number.
func (c *Client) Signal(ctx context.Context, app drover.AppName, id drover.MachineID, signal string) error {
	_, err := post[apiv1.OK](ctx, c, apiv1.SignalRequest{Signal: apiv1.Signal(signal)}, machinePath+"/signal", app, id)
	return err
}

// Events lists what happened to a machine, newest first.
func (c *Client) Events(ctx context.Context, app drover.AppName, id drover.MachineID) ([]apiv1.Event, error) {
	return get[[]apiv1.Event](ctx, c, nil, machinePath+"/events", app, id)
}

// LogsQuery says which piece of a log to read. A Tail above 0 starts so many lines before the end and Offset is ignored. Wait is how
// long the server may hold the answer back while there is nothing new, 30 s at most.
type LogsQuery struct {
	Offset int64
	Tail   int
	Wait   time.Duration
	// Host is where the machine was before its last move, to read what it wrote there; empty for where it is.
	Host drover.HostID
}

// Logs reads a piece of a machine's log.
func (c *Client) Logs(ctx context.Context, app drover.AppName, id drover.MachineID, q LogsQuery) (apiv1.Logs, error) {
	query := url.Values{}
	if q.Tail > 0 {
		query.Set("tail", strconv.Itoa(q.Tail))
	} else {
		query.Set("offset", strconv.FormatInt(q.Offset, 10))
	}
	if q.Wait > 0 {
		query.Set("wait", q.Wait.String())
	}
	if q.Host != "" {
		query.Set("host", string(q.Host))
	}
	return get[apiv1.Logs](ctx, c, query, machinePath+"/logs", app, id)
}

// Hosts lists the hosts by ID. Operators only, as everything that follows.
func (c *Client) Hosts(ctx context.Context) ([]drover.HostInfo, error) {
	return get[[]drover.HostInfo](ctx, c, nil, "/operator/hosts")
}

// Host returns one host.
func (c *Client) Host(ctx context.Context, id drover.HostID) (drover.HostInfo, error) {
	return get[drover.HostInfo](ctx, c, nil, "/operator/hosts/%s", id)
}

// HostLayers lists the layers in a host's pool, by ID. Unavailable when the host does not answer.
func (c *Client) HostLayers(ctx context.Context, id drover.HostID) ([]drover.LayerStatus, error) {
	return get[[]drover.LayerStatus](ctx, c, nil, "/operator/hosts/%s/layers", id)
}

// HostMachines lists the machines on a host, of every app.
func (c *Client) HostMachines(ctx context.Context, id drover.HostID) ([]apiv1.Machine, error) {
	return get[[]apiv1.Machine](ctx, c, nil, "/operator/hosts/%s/machines", id)
}

// SetStorage sets what holds for a host's storage as a whole; what is nil stays.
func (c *Client) SetStorage(ctx context.Context, id drover.HostID, req apiv1.StorageRequest) (drover.StorageSettings, error) {
	return put[drover.StorageSettings](ctx, c, req, "/operator/hosts/%s/storage", id)
}

// Move starts a migration of a machine; the fleet chooses the target when it is empty.
func (c *Client) Move(ctx context.Context, req apiv1.MoveRequest) (apiv1.Migration, error) {
	return post[apiv1.Migration](ctx, c, req, "/operator/migrations")
}

// CheckMove tells everything that is for and against a move, and changes nothing.
func (c *Client) CheckMove(ctx context.Context, req apiv1.MoveRequest) (drover.MoveCheck, error) {
	return post[drover.MoveCheck](ctx, c, req, "/operator/migrations/check")
}

// UndoMigration takes a migration back, or, without confirm, tells what that would give up.
func (c *Client) UndoMigration(ctx context.Context, id drover.MigrationID, confirm bool) (apiv1.Undo, error) {
	return post[apiv1.Undo](ctx, c, apiv1.UndoRequest{Confirm: confirm}, migrationPath+"/undo", id)
}

// WriteOff gives up the source of a migration that is lost, or, without confirm, tells what that would give up and what copies there are.
func (c *Client) WriteOff(ctx context.Context, id drover.MigrationID, confirm bool, reason string) (drover.LostSource, error) {
	return post[drover.LostSource](ctx, c, apiv1.WriteOffRequest{Confirm: confirm, Reason: reason}, migrationPath+"/write-off", id)
}

// Migrations lists the migrations, newest first; those of one machine when it is not empty.
func (c *Client) Migrations(ctx context.Context, machine drover.MachineID) ([]apiv1.Migration, error) {
	query := url.Values{}
	if machine != "" {
		query.Set("machine", string(machine))
	}
	return get[[]apiv1.Migration](ctx, c, query, "/operator/migrations")
}

// Migration returns one migration.
func (c *Client) Migration(ctx context.Context, id drover.MigrationID) (apiv1.Migration, error) {
	return get[apiv1.Migration](ctx, c, nil, migrationPath, id)
}

// AbortMigration gives a migration up. Precondition after its switch.
func (c *Client) AbortMigration(ctx context.Context, id drover.MigrationID) (apiv1.Migration, error) {
	return post[apiv1.Migration](ctx, c, nil, migrationPath+"/abort", id)
}
