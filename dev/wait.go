package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"drover"
	"drover/internal/durable"
	"drover/internal/hostconf"
)

// Bounds of asking the API.
const (
	apiPoll       = 50 * time.Millisecond
	apiTryTimeout = 3 * time.Second
	maxAPIAnswer  = 4 << 20
	// hintLines is how much of a log is shown with an error.
	hintLines = 8
)

// waitReady waits until the API answers and every worker has registered since the start.
func (f *Fleet) waitReady(ctx context.Context, layout *Layout, cfg Config) error {
	return f.await(ctx, layout, cfg, func(ctx context.Context) ([]drover.HostID, error) { return f.missing(ctx, layout) })
}

// await looks again and again which workers are missing, until none is.
func (f *Fleet) await(ctx context.Context, layout *Layout, cfg Config, look func(ctx context.Context) ([]drover.HostID, error)) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.Wait)
	defer cancel()
	began := time.Now()
	tick := time.NewTicker(apiPoll)
	defer tick.Stop()
	answered, last := false, -1
	var missing []drover.HostID
	var err error
	for {
		// What the end of the time cut short tells nothing of the fleet: then the answer before it counts.
		if now, nerr := look(ctx); ctx.Err() == nil {
			missing, err = now, nerr
		}
		if err == nil && !answered {
			answered = true
			info, err := readAPIInfo(f.p)
			if err != nil {
				return err
			}
			cfg.Progress(fmt.Sprintf("the API answers on %s", info.URL))
		}
		if err == nil && len(missing) != last {
			last = len(missing)
			if last == 0 {
				cfg.Progress(fmt.Sprintf("all hosts are ready after %.1f s", time.Since(began).Seconds()))
				return nil
			}
			cfg.Progress(fmt.Sprintf("waiting for %v", missing))
		}
		select {
		case <-ctx.Done():
			return f.notReady(layout, missing, err, cfg.Wait)
		case <-tick.C:
		}
	}
}

// notReady says what is missing and shows the end of the logs that tell why.
func (f *Fleet) notReady(layout *Layout, missing []drover.HostID, cause error, limit time.Duration) error {
	if cause != nil {
		for _, h := range layout.Hosts {
			if h.has(drover.RoleControl) {
				return drover.Errorf(drover.Unavailable, "the API of control host %q does not answer after %s: %w", h.ID, limit, cause).
					WithHint("%s", tailHint(f.p.log(h.ID, "control")))
			}
		}
	}
	var hints []string
	for _, id := range missing {
		hints = append(hints, tailHint(f.p.log(id, "worker")))
	}
	return drover.Errorf(drover.Unavailable, "not registered after %s: %v", limit, missing).WithHint("%s", strings.Join(hints, "\n"))
}

// missing asks the API which workers have not registered. An error means that the API does not answer.
func (f *Fleet) missing(ctx context.Context, layout *Layout) ([]drover.HostID, error) {
	if err := f.storeAPIInfo(ctx); err != nil {
		return nil, err
	}
	info, err := readAPIInfo(f.p)
	if err != nil {
		return nil, err
	}
	hosts, err := askHosts(ctx, info)
	if err != nil {
		return nil, err
	}
	ok := map[drover.HostID]bool{}
	for _, h := range hosts {
		ok[h.ID] = h.Status == drover.HostOK
	}
	var missing []drover.HostID
	for _, h := range layout.Hosts {
		if h.has(drover.RoleWorker) && !ok[h.ID] {
			missing = append(missing, h.ID)
		}
	}
	return missing, nil
}

// askHosts lists the hosts by the operator API.
func askHosts(ctx context.Context, info APIInfo) ([]drover.HostInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTryTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, info.URL+"/v1/operator/hosts", nil)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot make a request to %s: %w", info.URL, err)
	}
	req.Header.Set("Authorization", "Bearer "+info.Token)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, drover.Errorf(drover.Unavailable, "the API does not answer: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAPIAnswer))
	if err != nil {
		return nil, drover.Errorf(drover.Unavailable, "the API's answer ended early: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, drover.Errorf(drover.Unavailable, "the API answers %s: %s", resp.Status, bytes.TrimSpace(body))
	}
	var hosts []drover.HostInfo
	if err := json.Unmarshal(body, &hosts); err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot read the API's answer: %w", err)
	}
	return hosts, nil
}

// storeAPIInfo writes api.json if it has changed: where the rack has opened the API's listener, and the token that the control host has
// made. Unavailable while the control host has not made it yet.
func (f *Fleet) storeAPIInfo(ctx context.Context) error {
	status, err := f.rack(ctx)
	if err != nil {
		return err
	}
	layout, err := loadLayout(f.p)
	if err != nil {
		return err
	}
	for _, h := range layout.Hosts {
		if !h.has(drover.RoleControl) || status.API == "" {
			continue
		}
		c, err := hostconf.Load(f.p.hostConfig(h.ID))
		if err != nil {
			return err
		}
		token, err := os.ReadFile(c.API.TokenFile)
		if errors.Is(err, os.ErrNotExist) {
			return drover.Errorf(drover.Unavailable, "control host %q has not made its operator's token yet", h.ID)
		}
		if err != nil {
			return drover.Errorf(drover.Internal, "cannot read the operator's token: %w", err)
		}
		info := APIInfo{URL: "http://" + status.API, Token: strings.TrimSpace(string(token))}
		if have, err := readAPIInfo(f.p); err == nil && have == info {
			return nil
		}
		if err := durable.WriteJSON(f.p.api(), info, 0o600); err != nil {
			return drover.Errorf(drover.Internal, "cannot write how the API is reached: %w", err)
		}
	}
	return nil
}

// tailHint names a log and shows its last lines.
func tailHint(path string) string {
	text, err := lastLinesOf(path, hintLines)
	if err != nil {
		return fmt.Sprintf("there is no log yet at %s", path)
	}
	return fmt.Sprintf("the end of %s:\n%s", path, text)
}

// lastLinesOf returns the last lines of a file.
func lastLinesOf(path string, n int) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	if len(lines[len(lines)-1]) == 0 {
		lines = lines[:len(lines)-1]
	}
	return string(bytes.Join(lines[max(0, len(lines)-n):], nil)), nil
}
