package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"drover"
	"drover/apiv1"
	"drover/internal/testkit"
)

const (
	// scaleApps is how many apps the machines are dealt out to, beside one that has listMany and one that has listFew of them.
	scaleApps = 200
	listMany  = 10_000
	listFew   = 100
	// scaleClients is how many create machines at once.
	scaleClients = 64
	// scaleWaiters is how many wait at once.
	scaleWaiters = 1000
	// goalPlacements is how many machines are to be placed per second.
	goalPlacements = 200
	// listings is how often a list is asked for: often enough that one slow answer is not the 99th percentile.
	listings = 300
)

// measureScale fills a fleet of simulated hosts with machines, and measures what an API client sees then.
func measureScale(ctx context.Context, w *world) (results []result, err error) {
	begun := time.Now()
	if err := w.hosts(ctx, w.setup.hosts); err != nil {
		return nil, err
	}
	fmt.Fprintf(w.log, "%d hosts have joined after %s; %s\n", w.setup.hosts, time.Since(begun).Round(time.Second), memory())
	stop, err := profile(w.profiles)
	if err != nil {
		return nil, err
	}
	placed, cpu, err := w.fill(ctx)
	if err := errors.Join(err, stop()); err != nil {
		return nil, err
	}
	fmt.Fprintf(w.log, "%d machines; %s\n", w.fleet, memory())
	results = append(results, compare("scale.placements", "1/s", "higher", "the goal", []float64{placed}, []float64{goalPlacements}),
		compare("scale.placements.cpu", "ms", "lower", "the CPUs of this machine at the goal", []float64{cpu}, []float64{float64(runtime.NumCPU()) * 1000 / goalPlacements}))
	for _, m := range []func(context.Context) ([]result, error){w.lists, w.waits, w.resync} {
		more, err := m(ctx)
		results = append(results, more...)
		if err != nil {
			return results, err
		}
	}
	return results, nil
}

// fill makes the machines, and returns how many per second were made and told to start, and how many milliseconds of CPU this process took for each: of
// clients, control host, bus and all agents, with what those of the machines take that are there already.
func (w *world) fill(ctx context.Context) (perSecond, cpu float64, err error) {
	apps := []drover.AppName{"many", "few"}
	for n := range scaleApps {
		apps = append(apps, drover.AppName("app-"+strconv.Itoa(n)))
	}
	for _, app := range apps {
		if _, err := w.client.CreateApp(ctx, apiv1.CreateAppRequest{AppName: string(app)}); err != nil {
			return 0, 0, err
		}
	}
	var next, again atomic.Int64
	begun, used := time.Now(), cpuTime()
	g, gctx := errgroup.WithContext(ctx)
	for range scaleClients {
		g.Go(func() error {
			for {
				n := int(next.Add(1)) - 1
				if n >= w.fleet {
					return nil
				}
				if n > 0 && n%5000 == 0 {
					fmt.Fprintf(w.log, "%d machines after %s; %s\n", n, time.Since(begun).Round(time.Second), memory())
				}
				app := apps[2+n%scaleApps]
				switch {
				case n < min(listMany, w.fleet*5/6):
					app = "many"
				case n >= w.fleet-listFew:
					app = "few"
				}
				if err := w.make(gctx, app, &again); err != nil {
					return fmt.Errorf("machine %d: %w", n, err)
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return 0, 0, err
	}
	perSecond = float64(w.fleet) / time.Since(begun).Seconds()
	spent := cpuTime() - used
	cpu = spent.Seconds() * 1000 / float64(w.fleet)
	fmt.Fprintf(w.log, "%.0f machines/s, %d asked for again; %.1f ms of CPU each, of which this process had %.2f CPUs\n", perSecond, again.Load(), cpu,
		spent.Seconds()/time.Since(begun).Seconds())
	return perSecond, cpu, testkit.Eventually(ctx, 5*time.Minute, "the last machines to run", func() (bool, error) {
		list, err := w.client.Machines(ctx, "few")
		for _, m := range list {
			if m.State != drover.StateStarted {
				return false, err
			}
		}
		return err == nil, err
	})
}

// makeTries bounds how often a machine is asked for: a host that does not get its turn on these CPUs for seconds does not answer.
const makeTries = 5

// make makes one machine, and counts in again how often it had to be asked for once more.
func (w *world) make(ctx context.Context, app drover.AppName, again *atomic.Int64) (err error) {
	for try := range makeTries {
		if try > 0 {
			again.Add(1)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Duration(try) * time.Second):
			}
		}
		_, err = w.client.CreateMachine(ctx, app, apiv1.CreateMachineRequest{Config: drover.MachineConfig{Image: "busybox"}})
		if !drover.Is(err, drover.Unavailable) {
			return err
		}
	}
	return err
}

// lists measures the list of an app's machines, as bytes on the wire. Before each a machine of the app is changed, as somebody always does in a fleet that is
// in use, so that no answer is the one before.
func (w *world) lists(ctx context.Context) (results []result, err error) {
	for _, l := range []struct {
		app  string
		goal float64
	}{{"many", 100}, {"few", 50}} {
		machines, err := w.client.Machines(ctx, drover.AppName(l.app))
		if err != nil {
			return results, err
		}
		var took []float64
		var size int64
		for n := range listings {
			if err := w.client.SetMetadata(ctx, drover.AppName(l.app), machines[n%len(machines)].ID, "listed", strconv.Itoa(n)); err != nil {
				return results, err
			}
			begun := time.Now()
			size, err = w.get(ctx, "/v1/apps/"+l.app+"/machines?summary=true")
			if err != nil {
				return results, err
			}
			took = append(took, float64(time.Since(begun).Microseconds())/1000)
		}
		fmt.Fprintf(w.log, "list of %s: %d bytes, the first %.1f ms, p50 %.1f ms, p99 %.1f ms\n", l.app, size, took[0], percentile(took, 50), percentile(took, 99))
		results = append(results, compare("scale.list."+l.app+".p99", "ms", "lower", "the goal", []float64{percentile(took, 99)}, []float64{l.goal}))
	}
	return results, nil
}

// get reads an answer to its end and returns its size.
func (w *world) get(ctx context.Context, path string) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.api.URL+path, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() // it was read to its end
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return n, err
}

// waits measures what waiters cost: the heap and the stacks that they take, those of the clients, which are in this process, too.
func (w *world) waits(ctx context.Context) ([]result, error) {
	list, err := w.client.Machines(ctx, "few")
	if err != nil || len(list) == 0 {
		return nil, errors.Join(err, errors.New("no machines to wait for"))
	}
	before := inUse()
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	var failed atomic.Int64
	for n := range scaleWaiters {
		group.Go(func() {
			id := list[n%len(list)].ID
			if _, err := w.get(ctx, fmt.Sprintf("/v1/apps/few/machines/%s/wait?state=stopped&timeout=60", id)); err != nil && ctx.Err() == nil {
				failed.Add(1)
			}
		})
	}
	time.Sleep(10 * time.Second) // all of them wait by then
	cost := inUse() - before
	cancel()
	group.Wait()
	if failed.Load() > 0 {
		return nil, fmt.Errorf("%d of %d waiters failed", failed.Load(), scaleWaiters)
	}
	fmt.Fprintf(w.log, "%d waiters take %.1f MiB, with their clients\n", scaleWaiters, cost/(1<<20))
	return []result{compare("scale.waiters", "B", "lower", "the goal", []float64{cost}, []float64{100 << 20})}, nil
}

// inUse is what the process uses of memory for heap and stacks, in bytes.
func inUse() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse + m.StackInuse)
}

// memory tells the resident set of this process, which has everything in it.
func memory() string {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(data), "\n")
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "VmRSS:") })
	if i < 0 {
		return "no VmRSS"
	}
	return strings.Join(strings.Fields(lines[i]), " ")
}

// resync measures how long a control host takes that starts anew, until it answers with every machine.
func (w *world) resync(ctx context.Context) ([]result, error) {
	w.end()
	w.api.Close()
	begun := time.Now()
	if err := w.begin(ctx); err != nil {
		return nil, err
	}
	want := min(listMany, w.fleet*5/6)
	err := testkit.Eventually(ctx, 5*time.Minute, "the list of all machines", func() (bool, error) {
		list, err := w.client.Machines(ctx, "many")
		if drover.Is(err, drover.Unavailable) {
			return false, nil // it reads the fleet's state
		}
		return err == nil && len(list) == want, err
	})
	took := time.Since(begun).Seconds()
	fmt.Fprintf(w.log, "a control host that starts anew answers after %.1f s; %s\n", took, memory())
	return []result{compare("scale.resync", "s", "lower", "the goal", []float64{took}, []float64{30})}, err
}
