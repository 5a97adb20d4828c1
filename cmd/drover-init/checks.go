package main

import (
	"bufio"
	"context"
	"crypto/tls"
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
		c.results[name] = drover.CheckStatus{Name: name, Status: checkCritical, Output: "not checked yet", UpdatedAt: time.Now()}
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
		result := c.once(ctx, check)
		if ctx.Err() != nil {
			return
		}
		result.Name = name
		c.set(result)
		timer.Reset(interval)
	}
}

// set keeps a result, and reports all of them when this one is another than before.
func (c *checker) set(result drover.CheckStatus) {
	c.reporting.Lock()
	defer c.reporting.Unlock()
	c.mu.Lock()
	old := c.results[result.Name]
	result.UpdatedAt = time.Now()
	c.results[result.Name] = result
	all := c.statusesLocked()
	c.mu.Unlock()
	if result.UpdatedAt = old.UpdatedAt; old != result {
		c.report.emit(guest.StatusEvent{Event: guest.EventChecks, Checks: all})
	}
}

// once makes a check: passing if it passes at one of the hosts.
func (c *checker) once(ctx context.Context, check drover.Check) drover.CheckStatus {
	timeout := time.Duration(check.Timeout)
	if timeout <= 0 {
		timeout = checkTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var failures []string
	for _, host := range c.hosts {
		text, role, err := c.ask(ctx, check, net.JoinHostPort(host, strconv.Itoa(check.Port)))
		if err == nil {
			return drover.CheckStatus{Status: checkPassing, Output: text, Role: role}
		}
		failures = append(failures, err.Error())
	}
	text := strings.Join(slices.Compact(failures), "; ")
	return drover.CheckStatus{Status: checkCritical, Output: text[:min(len(text), maxCheckOutput)]}
}

// ask makes a check at one address, and returns what it said and the role that it told.
func (c *checker) ask(ctx context.Context, check drover.Check, address string) (string, drover.MoveRole, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", "", err
	}
	defer conn.Close() // nothing is left to be written
	switch check.Type {
	case drover.CheckTCP, "":
		return "connected", "", nil
	case drover.CheckHTTP:
		deadline, _ := ctx.Deadline()
		if err := conn.SetDeadline(deadline); err != nil {
			return "", "", err
		}
		if check.Protocol == "https" {
			secure, err := startTLS(ctx, conn, check, address)
			if err != nil {
				return "", "", err
			}
			return askHTTP(secure, check, address)
		}
		return askHTTP(conn, check, address)
	}
	return "", "", fmt.Errorf("there is no check of type %q", check.Type)
}

// askHTTP makes a request by HTTP/1.0 and reads the status line: 2xx and 3xx pass. net/http would double the size of this program and
// take its share of every boot.
func askHTTP(conn io.ReadWriter, check drover.Check, address string) (string, drover.MoveRole, error) {
	method, path := check.Method, check.Path
	if method == "" {
		method = "GET"
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	if strings.ContainsAny(method+path, " \r\n") {
		return "", "", fmt.Errorf("method %q or path %q is not allowed in HTTP", method, path)
	}
	head, err := requestHead(strings.ToUpper(method), path, address, check.Headers)
	if err != nil {
		return "", "", err
	}
	if _, err := conn.Write(head); err != nil {
		return "", "", err
	}
	answer := bufio.NewReader(io.LimitReader(conn, 4096))
	line, err := answer.ReadString('\n')
	if err != nil {
		return "", "", fmt.Errorf("%s gave no HTTP answer: %w", address, err)
	}
	line = strings.TrimSpace(line)
	version, rest, _ := strings.Cut(line, " ")
	number, _, _ := strings.Cut(rest, " ")
	code, err := strconv.Atoi(number)
	if err != nil || !strings.HasPrefix(version, "HTTP/") {
		return "", "", fmt.Errorf("%s did not answer by HTTP: %.60q", address, line)
	}
	if code < 200 || code > 399 {
		return "", "", fmt.Errorf("%s %s: %s", strings.ToUpper(method), path, rest)
	}
	return rest, roleIn(answer), nil
}

// roleIn looks for the machine's role in the headers of an answer. Headers that do not end are no failure: the status line has passed.
func roleIn(answer *bufio.Reader) drover.MoveRole {
	for {
		line, err := answer.ReadString('\n')
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if role := drover.MoveRole(strings.TrimSpace(value)); strings.EqualFold(name, drover.RoleHeader) && role.Known() {
			return role
		}
		if err != nil || name == "" {
			return ""
		}
	}
}

// requestHead writes a request. A header of the check takes the place of one that would be sent without it.
func requestHead(method, path, address string, headers []drover.HTTPHeader) ([]byte, error) {
	head := fmt.Appendf(nil, "%s %s HTTP/1.0\r\n", method, path)
	given := map[string]bool{}
	for _, h := range headers {
		given[strings.ToLower(h.Name)] = true
		for _, value := range h.Values {
			if strings.ContainsAny(h.Name+value, "\r\n\x00") {
				return nil, fmt.Errorf("header %q is not allowed in HTTP", h.Name)
			}
			head = fmt.Appendf(head, "%s: %s\r\n", h.Name, value)
		}
	}
	for _, h := range [][2]string{{"Host", address}, {"User-Agent", "drover-check"}, {"Connection", "close"}} {
		if !given[strings.ToLower(h[0])] {
			head = fmt.Appendf(head, "%s: %s\r\n", h[0], h[1])
		}
	}
	return append(head, "\r\n"...), nil
}

// startTLS begins TLS as a check asks for it: with the image's own certificate authorities, or without asking who answers.
func startTLS(ctx context.Context, conn net.Conn, check drover.Check, address string) (net.Conn, error) {
	name := check.TLSServerName
	if name == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		name = host
	}
	secure := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: check.TLSSkipVerify})
	return secure, secure.HandshakeContext(ctx)
}
