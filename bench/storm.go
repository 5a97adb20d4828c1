package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"drover"
	"drover/apiv1"
	control "drover/fleet"
)

const (
	// stormClients ask again stormPause after each answer, whatever it says: without limits that would be some 3,000 requests a second.
	stormClients = 64
	stormPause   = 20 * time.Millisecond
	// stormRounds is how often a quiet time and a storm follow each other, stormAsked how many requests the other tenant makes in each, one every
	// stormEvery.
	stormRounds = 5
	stormAsked  = 500
	stormEvery  = 10 * time.Millisecond
	// stormMachines is how many machines each of the two has.
	stormMachines = 20
)

// measureStorm measures how long a tenant's requests take while another tenant's clients ask again and again, at once and without end, against how long they
// take while those are still. The limits are those of a control host.
func measureStorm(ctx context.Context, w *world) ([]result, error) {
	if err := w.hosts(ctx, startHosts); err != nil {
		return nil, err
	}
	tokens := map[string]string{}
	for _, name := range []string{"calm", "stormy"} {
		tokens[name] = "drv_" + rand.Text()
		if err := w.loop.PutToken(ctx, tokens[name], control.Principal{Name: name, Organization: name}); err != nil {
			return nil, err
		}
		if _, err := w.client.CreateApp(ctx, apiv1.CreateAppRequest{AppName: name, OrgSlug: name}); err != nil {
			return nil, err
		}
		for range stormMachines {
			if _, err := w.client.CreateMachine(ctx, drover.AppName(name), apiv1.CreateMachineRequest{Config: drover.MachineConfig{Image: "busybox"}}); err != nil {
				return nil, err
			}
		}
	}
	var quiet, storm, p99quiet, p99storm []float64
	var sent, refused int64
	for range stormRounds {
		got, err := w.tenant(ctx, tokens["calm"])
		if err != nil {
			return nil, err
		}
		quiet, p99quiet = append(quiet, got...), append(p99quiet, percentile(got, 99))
		stop, err := w.storm(ctx, tokens["stormy"])
		if err != nil {
			return nil, err
		}
		got, err = w.tenant(ctx, tokens["calm"])
		all, no, stopErr := stop()
		sent, refused = sent+all, refused+no
		if err := errors.Join(err, stopErr); err != nil {
			return nil, err
		}
		storm, p99storm = append(storm, got...), append(p99storm, percentile(got, 99))
	}
	fmt.Fprintf(w.log, "quiet: p50 %.2f ms, p99 %.2f ms; in a storm of %d requests, %d of them refused: p50 %.2f ms, p99 %.2f ms\n", percentile(quiet, 50),
		percentile(quiet, 99), sent, refused, percentile(storm, 50), percentile(storm, 99))
	if refused == 0 {
		return nil, errors.New("nothing of the storm was refused: there was none")
	}
	return []result{compare("storm.others.p99", "ms", "lower", "without a storm", p99storm, p99quiet)}, nil
}

// tenant asks as a client does that keeps to itself, and returns how many milliseconds each answer took.
func (w *world) tenant(ctx context.Context, token string) (took []float64, err error) {
	tick := time.NewTicker(stormEvery)
	defer tick.Stop()
	for range stormAsked {
		begun := time.Now()
		status, err := ask(ctx, w.transport, token, w.api.URL+"/v1/apps/calm/machines")
		if err != nil {
			return nil, err
		}
		if status != http.StatusOK {
			return nil, fmt.Errorf("the tenant that keeps to itself gets %d", status)
		}
		took = append(took, float64(time.Since(begun).Microseconds())/1000)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return took, nil
}

// stormEnv makes a copy of this program the clients of a storm, which ask for what its value names.
const stormEnv = "DROVER_BENCH_STORM"

// storm asks until the function that it returns is called, which tells how much was asked, and how much of it was refused. The clients are a process of their own,
// which gets of the CPUs what the server and the other tenant leave (SCHED_IDLE): those of a real storm are on other machines.
func (w *world) storm(ctx context.Context, token string) (stop func() (sent, refused int64, err error), err error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "chrt", "--idle", "0", exe)
	cmd.Env = append(os.Environ(), stormEnv+"="+w.api.URL+"/v1/apps/stormy/machines "+token)
	cmd.Stderr = w.log
	end, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() (sent, refused int64, err error) {
		if err := errors.Join(end.Close(), cmd.Wait()); err != nil {
			return 0, 0, err
		}
		_, err = fmt.Fscan(&out, &sent, &refused)
		return sent, refused, err
	}, nil
}

// serveStorm is the process of a storm's clients, until its input ends.
func serveStorm(what string, stdin io.Reader, stdout io.Writer) error {
	url, token, _ := strings.Cut(what, " ")
	transport := &http.Transport{MaxIdleConnsPerHost: 2 * stormClients}
	ctx, cancel := context.WithCancel(context.Background())
	var sent, refused atomic.Int64
	var group sync.WaitGroup
	for range stormClients {
		group.Go(func() {
			for ctx.Err() == nil {
				status, err := ask(ctx, transport, token, url)
				if err == nil {
					sent.Add(1)
				}
				if status == http.StatusTooManyRequests {
					refused.Add(1)
				}
				select {
				case <-time.After(stormPause):
				case <-ctx.Done():
				}
			}
		})
	}
	_, err := io.Copy(io.Discard, stdin)
	cancel()
	group.Wait()
	fmt.Fprintln(stdout, sent.Load(), refused.Load())
	return err
}

// ask asks with a token and returns the status of the answer, which is read to its end.
func ask(ctx context.Context, transport *http.Transport, token, url string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() // it is read to its end
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}
