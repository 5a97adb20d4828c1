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

// RestartOptions override the config's way of stopping, field by field. Force kills without a stop signal.
type RestartOptions struct {
	Force   bool
	Timeout time.Duration
	Signal  string
}

func (o RestartOptions) query() url.Values {
	query := url.Values{}
	if o.Force {
		query.Set("force_stop", "true")
	}
	if o.Timeout > 0 {
		query.Set("timeout", o.Timeout.String())
	}
	if o.Signal != "" {
		query.Set("signal", o.Signal)
	}
	return query
}

// MachineFilter narrows a list of machines. Its zero value is all that are not destroyed.
type MachineFilter struct {
	Region         drover.Region
	States         []drover.MachineState
	Metadata       map[string]string
	IncludeDeleted bool
	// Summary leaves out configs, events and checks.
	Summary bool
	// Newest has the newest first.
	Newest bool
}

func (f MachineFilter) query() url.Values {
	query := url.Values{}
	set := func(name, value string) {
		if value != "" {
			query.Set(name, value)
		}
	}
	flag := func(name string, on bool, value string) {
		if on {
			query.Set(name, value)
		}
	}
	set("region", string(f.Region))
	for _, s := range f.States {
		query.Add("state", string(s))
	}
	for key, value := range f.Metadata {
		query.Set("metadata."+key, value)
	}
	flag("include_deleted", f.IncludeDeleted, "true")
	flag("summary", f.Summary, "true")
	flag("order", f.Newest, "desc")
	return query
}

// ListMachines lists an app's machines that the filter takes, oldest first unless it says otherwise.
func (c *Client) ListMachines(ctx context.Context, app drover.AppName, filter MachineFilter) ([]apiv1.Machine, error) {
	return get[[]apiv1.Machine](ctx, c, filter.query(), "/apps/%s/machines", app)
}

// MachineLease shows who has the lease of a machine. NotFound when nobody has.
func (c *Client) MachineLease(ctx context.Context, app drover.AppName, id drover.MachineID) (apiv1.Lease, error) {
	lease, err := get[apiv1.LeaseResponse](ctx, c, nil, machinePath+"/lease", app, id)
	return lease.Data, err
}

// LeaseMachine takes the lease of a machine, or prolongs it with its nonce. Conflict while somebody else has it.
func (c *Client) LeaseMachine(ctx context.Context, app drover.AppName, id drover.MachineID, nonce string, ttl time.Duration, description string) (apiv1.Lease, error) {
	query := url.Values{"ttl": {strconv.Itoa(int((ttl + time.Second - 1) / time.Second))}}
	var lease apiv1.LeaseResponse
	err := c.do(WithNonce(ctx, nonce), http.MethodPost, pathOf(machinePath+"/lease", []any{app, id}), query, apiv1.LeaseRequest{Description: description}, &lease)
	return lease.Data, err
}

// ReleaseMachine gives a lease up. Conflict when the nonce is not that of the lease, NotFound when there is none.
func (c *Client) ReleaseMachine(ctx context.Context, app drover.AppName, id drover.MachineID, nonce string) error {
	return c.do(WithNonce(ctx, nonce), http.MethodDelete, pathOf(machinePath+"/lease", []any{app, id}), nil, nil, nil)
}

// Metadata returns all of a machine's metadata.
func (c *Client) Metadata(ctx context.Context, app drover.AppName, id drover.MachineID) (map[string]string, error) {
	return get[map[string]string](ctx, c, nil, machinePath+"/metadata", app, id)
}

// SetMetadata sets an entry of a machine's metadata, without a restart; an empty value removes it.
func (c *Client) SetMetadata(ctx context.Context, app drover.AppName, id drover.MachineID, key, value string) error {
	return c.do(ctx, http.MethodPost, pathOf(machinePath+"/metadata/%s", []any{app, id, key}), nil, apiv1.LabelRequest{Value: value}, nil)
}

// RemoveMetadata removes an entry of a machine's metadata; one that is not there is as good as removed.
func (c *Client) RemoveMetadata(ctx context.Context, app drover.AppName, id drover.MachineID, key string) error {
	return c.do(ctx, http.MethodDelete, pathOf(machinePath+"/metadata/%s", []any{app, id, key}), nil, nil, nil)
}

// MachineVersions lists the configs that a machine has and had, newest first.
func (c *Client) MachineVersions(ctx context.Context, app drover.AppName, id drover.MachineID) ([]apiv1.MachineVersion, error) {
	return get[[]apiv1.MachineVersion](ctx, c, nil, machinePath+"/versions", app, id)
}

// CordonMachine keeps a machine out of what gets traffic, or lets it in again.
func (c *Client) CordonMachine(ctx context.Context, app drover.AppName, id drover.MachineID, cordoned bool) error {
	verb := "/uncordon"
	if cordoned {
		verb = "/cordon"
	}
	return c.do(ctx, http.MethodPost, pathOf(machinePath+verb, []any{app, id}), nil, nil, nil)
}

// Processes lists the processes of a started machine.
func (c *Client) Processes(ctx context.Context, app drover.AppName, id drover.MachineID) ([]drover.Process, error) {
	return get[[]drover.Process](ctx, c, nil, machinePath+"/ps", app, id)
}
