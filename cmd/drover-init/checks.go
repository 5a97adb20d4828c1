package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"drover"
	"drover/guest"
)

// The defaults of a health check, and the shortest interval.
const (
	checkInterval    = 10 * time.Second
	checkTimeout     = 2 * time.Second
	checkMinInterval = 100 * time.Millisecond
)

// The results of a health check.
const (
	checkPassing  = "passing"
	checkWarning  = "warning"
	checkCritical = "critical"
)

// maxCheckOutput bounds the text of a result.
const maxCheckOutput = 256

// checker makes the health checks and reports them when one changes.
type checker struct {
	// hosts are tried one after the other: the machine's own address and the loopback addresses.
	hosts  []string
	report *reporter

	// reporting is held from looking at the results until they are reported, so that reports keep their order. It comes before mu.
	reporting sync.Mutex

	mu      sync.Mutex
	results map[string]drover.CheckStatus
}

func newChecker(cfg guest.Config, report *reporter) *checker {
	c := &checker{report: report, results: map[string]drover.CheckStatus{}}
	if cfg.Network.Address != "" {
		c.hosts = append(c.hosts, cfg.Network.Address)
	}
	c.hosts = append(c.hosts, "127.0.0.1", "::1")
	for name := range cfg.Checks {
		c.results[name] = drover.CheckStatus{Name: name, Status: checkWarning, Output: "not checked yet", UpdatedAt: time.Now()}
	}
	return c
}

// run makes the checks until ctx ends.
func (c *checker) run(ctx context.Context, checks map[string]drover.Check) {
	if len(checks) == 0 {
		return
	}
	c.report.emit(guest.StatusEvent{Event: guest.EventChecks, Checks: c.statuses()})
	var all sync.WaitGroup
	for name, check := range checks {
		all.Go(func() { c.loop(ctx, name, check) })
	}
	all.Wait()
}

// statuses returns the newest results, sorted by name.
func (c *checker) statuses() []drover.CheckStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.statusesLocked()
}

func (c *checker) statusesLocked() []drover.CheckStatus {
	var all []drover.CheckStatus
	for _, name := range slices.Sorted(maps.Keys(c.results)) {
		all = append(all, c.results[name])
	}
	return all
}

// loop makes one check: first after its grace period, then at its interval.
func (c *checker) loop(ctx context.Context, name string, check drover.Check) {
	interval := time.Duration(check.Interval)
	if interval <= 0 {
		interval = checkInterval
	}
	interval = max(interval, checkMinInterval)
	timer := time.NewTimer(time.Duration(check.GracePeriod))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		status, output := c.once(ctx, check)
		if ctx.Err() != nil {
			return
		}
		c.set(name, status, output)
		timer.Reset(interval)
	}
}

// set keeps a result, and reports all of them when this one is another than before.
func (c *checker) set(name, status, output string) {
	c.reporting.Lock()
	defer c.reporting.Unlock()
	c.mu.Lock()
	old := c.results[name]
	c.results[name] = drover.CheckStatus{Name: name, Status: status, Output: output, UpdatedAt: time.Now()}
	all := c.statusesLocked()
	c.mu.Unlock()
	if old.Status != status || old.Output != output {
		c.report.emit(guest.StatusEvent{Event: guest.EventChecks, Checks: all})
	}
}

// once makes a check: passing if it passes at one of the hosts.
func (c *checker) once(ctx context.Context, check drover.Check) (status, output string) {
	timeout := time.Duration(check.Timeout)
	if timeout <= 0 {
		timeout = checkTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var failures []string
	for _, host := range c.hosts {
		text, err := c.ask(ctx, check, net.JoinHostPort(host, strconv.Itoa(check.Port)))
		if err == nil {
			return checkPassing, text
		}
		failures = append(failures, err.Error())
	}
	text := strings.Join(slices.Compact(failures), "; ")
	return checkCritical, text[:min(len(text), maxCheckOutput)]
}

// ask makes a check at one address.
func (c *checker) ask(ctx context.Context, check drover.Check, address string) (string, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close() // nothing is left to be written
	switch check.Type {
	case drover.CheckTCP, "":
		return "connected", nil
	case drover.CheckHTTP:
		deadline, _ := ctx.Deadline()
		if err := conn.SetDeadline(deadline); err != nil {
			return "", err
		}
		return askHTTP(conn, check, address)
	}
	return "", fmt.Errorf("there is no check of type %q", check.Type)
}

// askHTTP makes a request by HTTP/1.0 and reads the status line: 2xx and 3xx pass. net/http would double the size of this program and
// take its share of every boot.
func askHTTP(conn io.ReadWriter, check drover.Check, address string) (string, error) {
	method, path := check.Method, check.Path
	if method == "" {
		method = "GET"
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	if strings.ContainsAny(method+path, " \r\n") {
		return "", fmt.Errorf("method %q or path %q is not allowed in HTTP", method, path)
	}
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: drover-check\r\nConnection: close\r\n\r\n",
		strings.ToUpper(method), path, address); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(io.LimitReader(conn, 4096)).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s gave no HTTP answer: %w", address, err)
	}
	line = strings.TrimSpace(line)
	version, rest, _ := strings.Cut(line, " ")
	number, _, _ := strings.Cut(rest, " ")
	code, err := strconv.Atoi(number)
	if err != nil || !strings.HasPrefix(version, "HTTP/") {
		return "", fmt.Errorf("%s did not answer by HTTP: %.60q", address, line)
	}
	if code < 200 || code > 399 {
		return "", fmt.Errorf("%s %s: %s", strings.ToUpper(method), path, rest)
	}
	return rest, nil
}
