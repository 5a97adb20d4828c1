package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"drover"
	"drover/apiv1"
	"drover/internal/durable"
	"drover/internal/testkit"
)

// Bounds of waiting. Emulated guests on few processors are slow; what comes to an end well comes long before.
const (
	boundCluster = 15 * time.Minute
	boundPrimary = 5 * time.Minute
)

// The reader's host, from which the client writes, too: it is never drained.
const readerHost = "h5"

const password = "rosebud-of-the-demo"

// stage is the fleet of the demo, and the means to type commands at it.
type stage struct {
	bin, image, dir, variant string
	cut                      cut
	cli                      testkit.CLI
	began                    time.Time
	rec                      *recorder
	// load is the input of the client, which ends when it is closed; loaded gets how it ended.
	load   io.Closer
	loaded chan error
	// addresses has the voters' literal addresses, the reader's last.
	addresses []string
	report    report
	timeline  int
}

// say prints a line of narration.
func (s *stage) say(format string, args ...any) {
	fmt.Printf("\n[%5.1f s] %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// typed shows a command as a user would type it, runs it, and lets its output through.
func (s *stage) typed(ctx context.Context, args ...string) error {
	fmt.Printf("$ drover %s\n", testkit.Words(args))
	return s.cli.Run(ctx, os.Stdout, args...)
}

// askEvery is how often something is asked for that is waited for: each time is a process, which guests go short of.
const askEvery = time.Second

// eventually waits until the condition holds, and looks at it once a second.
func eventually(ctx context.Context, bound time.Duration, what string, condition func() (bool, error)) error {
	var last time.Time
	return testkit.Eventually(ctx, bound, what, func() (bool, error) {
		if time.Since(last) < askEvery {
			return false, nil
		}
		defer func() { last = time.Now() }()
		return condition()
	})
}

// members asks for the machines of the app.
func (s *stage) members(ctx context.Context) ([]apiv1.Machine, error) {
	var all []apiv1.Machine
	err := s.cli.Ask(ctx, &all, "machine", "list", "--app", "pg")
	return all, err
}

// primary finds the member whose health check says that it is the primary.
func primary(all []apiv1.Machine) *apiv1.Machine {
	for i := range all {
		for _, c := range all[i].Checks {
			if c.Status == "passing" && c.Role == drover.RolePrimary && all[i].HostStatus != drover.HostUnreachable {
				return &all[i]
			}
		}
	}
	return nil
}

// unhealthy names the members that are not healthy, with what their checks say.
func unhealthy(all []apiv1.Machine) string {
	var names []string
	for _, m := range all {
		for _, c := range m.Checks {
			if m.State != drover.StateStarted || m.HostStatus == drover.HostUnreachable || c.Status != "passing" || !c.Role.Known() {
				names = append(names, m.Name)
			}
		}
	}
	return strings.Join(names, ", ")
}

// await waits until all members are healthy, one of them the primary, and says what it waits for.
func (s *stage) await(ctx context.Context, members int) error {
	shown := time.Now()
	return eventually(ctx, boundCluster, "a healthy cluster", func() (bool, error) {
		all, err := s.members(ctx)
		if err != nil {
			return false, nil // the API may be slow to answer on a busy machine; the bound counts
		}
		waits := unhealthy(all)
		if waits == "" && len(all) == members && primary(all) != nil {
			return true, nil
		}
		if time.Since(shown) > 15*time.Second {
			shown = time.Now()
			fmt.Printf("  waiting for %s\n", waits)
		}
		return false, nil
	})
}

// awaitPrimary waits until one member says that it is the primary.
func (s *stage) awaitPrimary(ctx context.Context) (m apiv1.Machine, err error) {
	err = eventually(ctx, boundPrimary, "a primary", func() (bool, error) {
		all, err := s.members(ctx)
		if err != nil {
			return false, nil // as above
		}
		p := primary(all)
		if p != nil {
			m = *p
		}
		return p != nil, nil
	})
	return m, err
}

// member makes a volume and a machine on it, as docs say.
func (s *stage) member(ctx context.Context, name, host string, env map[string]string) error {
	if err := s.typed(ctx, "volume", "create", name, "--app", "pg", "--host", host, "--size", "2GiB"); err != nil {
		return err
	}
	// The file is the one of the README, with the image that is here.
	content, err := os.ReadFile("examples/postgres/machine.json")
	if err != nil {
		return err
	}
	var config map[string]any
	if err := json.Unmarshal(content, &config); err != nil {
		return err
	}
	config["image"] = s.image
	if content, err = json.Marshal(config); err != nil {
		return err
	}
	path := filepath.Join(s.dir, "machine.json")
	if err := durable.WriteFile(path, content, 0o644); err != nil {
		return err
	}
	args := []string{"machine", "create", "--app", "pg", "--name", name, "--host", host, "--volume", name + ":/data", "--config", path}
	for k, v := range env {
		args = append(args, "--env", k+"="+v)
	}
	return s.typed(ctx, args...)
}

// inside runs a command in a member as postgres, and returns what it prints.
func (s *stage) inside(ctx context.Context, machine drover.MachineID, command ...string) (string, error) {
	var done struct {
		Stdout   string `json:"stdout"`
		Stderr   string `json:"stderr"`
		ExitCode int    `json:"exit_code"`
	}
	// repmgr will not run as root, and finds the password where pgnode has put it.
	line := append([]string{"machine", "exec", string(machine), "--timeout", "300s", "--", "setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "env",
		"PGPASSFILE=/data/pgpass"}, command...)
	fmt.Printf("$ drover %s\n", testkit.Words(line))
	var out bytes.Buffer
	cmd := s.cli.Command(ctx, append([]string{"--json"}, line...)...)
	cmd.Stdout = &out
	err := cmd.Run()
	if jerr := json.Unmarshal(out.Bytes(), &done); jerr != nil {
		return "", fmt.Errorf("%s: %w", command[0], errors.Join(err, jerr))
	}
	fmt.Print(done.Stdout)
	if done.ExitCode != 0 {
		return done.Stdout, fmt.Errorf("%s ended with %d: %s", command[0], done.ExitCode, strings.TrimSpace(done.Stderr))
	}
	return done.Stdout, nil
}

// client makes a command of the client, which runs on the reader's host and reaches the members by their addresses.
func (s *stage) client(ctx context.Context, what string) *exec.Cmd {
	cmd := s.cli.Command(ctx, "dev", "exec", readerHost, "--", filepath.Join(s.bin, "pgload"), what, strings.Join(s.addresses[:3], ","))
	cmd.Env = append(cmd.Env, "PG_PASSWORD="+password)
	return cmd
}

// startLoad lets the client write.
func (s *stage) startLoad(ctx context.Context) error {
	cmd := s.client(context.WithoutCancel(ctx), "write")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.load, s.loaded = in, make(chan error, 1)
	go func() { // ends with the client, which stopLoad waits for
		err := s.rec.read(out, time.Now)
		s.loaded <- errors.Join(err, cmd.Wait())
	}()
	return s.written(ctx, 50)
}

// written waits until so many more commits were acknowledged.
func (s *stage) written(ctx context.Context, more int) error {
	want := s.rec.total() + more
	return eventually(ctx, boundPrimary, fmt.Sprintf("the acknowledgement of %d commits", more), func() (bool, error) {
		select {
		case err := <-s.loaded:
			s.loaded <- err
			return false, fmt.Errorf("the client ended: %w", err)
		default:
			return s.rec.total() >= want, nil
		}
	})
}

// stopLoad lets the client end in order.
func (s *stage) stopLoad() error {
	if s.load == nil {
		return nil
	}
	err := s.load.Close()
	s.load = nil
	return errors.Join(err, <-s.loaded)
}

// showLogs prints what the members wrote last, for whoever has to find out why the demo failed.
func (s *stage) showLogs(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	all, err := s.members(ctx)
	if err != nil {
		return
	}
	for _, m := range all {
		var out bytes.Buffer
		if err := s.cli.Run(ctx, &out, "machine", "logs", string(m.ID)); err != nil {
			continue
		}
		lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
		fmt.Fprintf(os.Stderr, "--- %s on %s, %s, %+v\n%s\n", m.Name, m.Host, m.State, m.Checks, strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
}

// curtain takes the fleet down and removes everything.
func (s *stage) curtain(ctx context.Context) error {
	s.say("The fleet goes down and leaves nothing behind.")
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return errors.Join(s.typed(ctx, "dev", "down", "--purge"), os.RemoveAll(s.dir))
}
