package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"

	"drover"
	"drover/internal/testkit"
)

// app is the app that the machines belong to.
const app = "chaos"

// machineMB is the memory of a machine.
const machineMB = 128

// machine is one machine that runs the demo's writer on a volume, watched from outside.
type machine struct {
	*testkit.Watch
	id     drover.MachineID
	volume drover.VolumeID
	// names is what a user can name of it, as it was at the beginning.
	names string
	host  atomic.Pointer[drover.HostID]
	stop  func()
}

func (m *machine) lastHost() drover.HostID { return *m.host.Load() }

// shown is what `machine show` prints of a machine, as far as it matters here.
type shown struct {
	ID       string              `json:"id"`
	Name     string              `json:"name"`
	App      string              `json:"app"`
	State    drover.MachineState `json:"state"`
	Reason   string              `json:"reason"`
	Instance string              `json:"instance_id"`
	Address  string              `json:"private_ip"`
	Image    json.RawMessage     `json:"image_ref"`
	Config   json.RawMessage     `json:"config"`
	Created  string              `json:"created_at"`
	Host     drover.HostID       `json:"host"`
}

// names is what a user can name of the machine, and no move may change.
func (s shown) names() string {
	return fmt.Sprintf("%s %s %s %s %s %s %s %s", s.ID, s.Name, s.App, s.Instance, s.Address, s.Image, s.Config, s.Created)
}

// show asks for a machine and notes where it is.
func (r *run) show(ctx context.Context, m *machine) (shown, error) {
	var s shown
	err := r.ask(ctx, &s, "machine", "show", string(m.id), "--app", app)
	if err == nil && s.Host != "" {
		m.host.Store(&s.Host)
	}
	return s, err
}

// load makes the machines and waits until each has acknowledged something.
func (r *run) load(ctx context.Context) error {
	if _, err := r.within(ctx, boundCommand, "app", "create", app); err != nil {
		return err
	}
	for n := range r.o.Machines {
		m := &machine{}
		host := r.workers[n%len(r.workers)]
		m.host.Store(&host)
		var made struct {
			ID string `json:"id"`
		}
		if err := r.ask(ctx, &made, "volume", "create", fmt.Sprintf("records%d", n), "--app", app, "--host", string(host), "--size", "1GiB"); err != nil {
			return err
		}
		m.volume = drover.VolumeID(made.ID)
		// The policy starts a machine however often its VM is killed; the others give up after a number of times.
		if err := r.ask(ctx, &made, "machine", "create", "oci:"+r.o.Image, "--app", app, "--name", fmt.Sprintf("writer%d", n), "--memory", fmt.Sprint(machineMB),
			"--restart", "always", "--volume", string(m.volume)+":/data", "--detach"); err != nil {
			return err
		}
		m.id = drover.MachineID(made.ID)
		m.Watch = testkit.NewWatch(r.files, made.ID)
		watching, stop := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan struct{})
		go func() {
			defer close(done)
			m.Run(watching)
		}()
		m.stop = func() { stop(); <-done }
		r.machines = append(r.machines, m)
	}
	for n, m := range r.machines {
		err := testkit.Eventually(ctx, boundBoot, fmt.Sprintf("the first record of machine %d", n), func() (bool, error) {
			seen := m.Now()
			return seen.Acked > 0 && seen.Filled > 0, seen.Err
		})
		if err != nil {
			return err
		}
		s, err := r.show(ctx, m)
		if err != nil {
			return err
		}
		m.names = s.names()
		r.say("machine %d is %s on %s, with volume %s", n, m.id, s.Host, m.volume)
	}
	return nil
}

func bytesText(b drover.Bytes) string {
	if b == 0 {
		return "0"
	}
	return fmt.Sprintf("%dKiB", b/drover.KiB)
}
