package test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"drover"
	"drover/apiv1"
	"drover/demo/image"
	"drover/internal/testkit"
)

// Bounds. They are generous: they only end a test that would hang.
const (
	boundBoot = 90 * time.Second
	boundMove = 3 * time.Minute
)

// shared is the fleet that all tests use.
type shared struct {
	cli testkit.CLI
	// writerImage runs the demo's writer, shellImage a busybox shell.
	writerImage, shellImage string
}

var fleet *shared // set once by TestMain, before any test runs

func TestMain(m *testing.M) {
	if config := os.Getenv(personEnv); config != "" {
		if err := servePerson(config, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "person:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	if flag.Lookup("test.list").Value.String() != "" {
		os.Exit(m.Run()) // names only
	}
	code, err := withFleet(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, "test:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// withFleet runs the tests on a fleet of its own, and checks at the end that nothing of it is left.
func withFleet(run func() int) (code int, err error) {
	ctx := context.Background()
	bin, err := filepath.Abs("../bin")
	if err != nil {
		return 1, err
	}
	for _, program := range []string{"drover", "writer"} {
		if _, err := os.Stat(filepath.Join(bin, program)); err != nil {
			return 1, fmt.Errorf("%w: run 'make build' first", err)
		}
	}
	dir, err := os.MkdirTemp("", "drover-test-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f := &shared{cli: testkit.CLI{Bin: filepath.Join(bin, "drover"), Dir: filepath.Join(dir, "fleet"), Stderr: os.Stderr},
		writerImage: filepath.Join(dir, "writer"), shellImage: filepath.Join(dir, "shell")}
	if err := f.images(bin); err != nil {
		return 1, err
	}
	defer func() {
		down, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		if code != 0 {
			f.showLogs()
		}
		err = errors.Join(err, f.cli.Run(down, os.Stderr, "dev", "down", "--purge"), f.traces())
	}()
	if err := f.cli.Run(ctx, os.Stderr, "dev", "up", "--api-port", "0", "--boot-timeout", "80s"); err != nil {
		return 1, err
	}
	unwatch, err := f.watchAnswers()
	if err != nil {
		return 1, err
	}
	fleet = f
	code = run()
	return code, unwatch()
}

func (f *shared) images(bin string) error {
	return errors.Join(
		image.WriteLayout(f.writerImage, image.Spec{
			Programs: map[string]string{"writer": filepath.Join(bin, "writer")},
			Config:   v1.Config{Entrypoint: []string{"/writer"}, Cmd: []string{"run", "-fill", "8"}, Env: []string{"PATH=/bin"}},
		}),
		image.WriteLayout(f.shellImage, image.Spec{
			Config: v1.Config{Entrypoint: []string{"/bin/sh", "-c"}, Cmd: []string{"echo ready; exec sleep 100000"},
				Env: []string{"PATH=/bin", "FROM_IMAGE=yes"}, WorkingDir: "/tmp"},
		}))
}

// traces looks for processes of the fleet that outlived it.
func (f *shared) traces() error {
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	var left []error
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(line), f.cli.Dir) {
			left = append(left, fmt.Errorf("left running: %s", strings.ReplaceAll(string(line), "\x00", " ")))
		}
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), f.cli.Dir) {
		left = append(left, fmt.Errorf("left mounted (%v): %s", err, mounts))
	}
	return errors.Join(left...)
}

// showLogs prints the end of each host's logs.
func (f *shared) showLogs() {
	logs, _ := filepath.Glob(filepath.Join(f.cli.Dir, "hosts", "*", "log", "*.log"))
	for _, path := range logs {
		content, err := os.ReadFile(path)
		if err != nil || len(content) == 0 {
			continue
		}
		lines := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
		fmt.Fprintf(os.Stderr, "--- %s\n%s\n", path, strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}

// run types a command that must succeed and returns what it printed.
func run(t *testing.T, args ...string) string {
	t.Helper()
	var out strings.Builder
	if err := fleet.cli.Run(t.Context(), &out, args...); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return out.String()
}

// ask types a command with --json that must succeed.
func ask[T any](t *testing.T, args ...string) (answer T) {
	t.Helper()
	if err := fleet.cli.Ask(t.Context(), &answer, args...); err != nil {
		t.Fatal(err)
	}
	return answer
}

// eventually waits for a condition that only has to become true.
func eventually(t *testing.T, bound time.Duration, what string, condition func() bool) {
	t.Helper()
	if err := testkit.Eventually(t.Context(), bound, what, func() (bool, error) { return condition(), nil }); err != nil {
		t.Fatal(err)
	}
}

// newApp makes an app for the test and removes it, with all that is in it, at the end.
func newApp(t *testing.T) string {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-", ".", "-").Replace(t.Name()))
	name = strings.Trim(name[:min(len(name), 60)], "-")
	// The test before may have cut a host's power; its agent takes a moment to come back.
	for _, h := range []string{"h1", "h2", "h3"} {
		eventually(t, boundBoot, "an answer of "+h, func() bool { return fleet.cli.Ask(t.Context(), nil, "host", "layers", h) == nil })
	}
	run(t, "app", "create", name)
	t.Cleanup(func() { removeApp(t, name) })
	return name
}

func removeApp(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := fleet.cli.Run(ctx, nil, "app", "destroy", name, "--now", "--yes"); err != nil {
		t.Error(err)
	}
	err := testkit.Eventually(ctx, time.Minute, "the app's removal", func() (bool, error) {
		var left []apiv1.ListApp
		err := fleet.cli.Ask(ctx, &left, "app", "list", "--deleted")
		return err == nil && !slices.ContainsFunc(left, func(a apiv1.ListApp) bool { return string(a.Name) == name }), nil
	})
	if err != nil {
		t.Error(err)
	}
}

// shell makes a machine that runs a shell command, and waits until it has started.
func shell(t *testing.T, app, command string, flags ...string) apiv1.Machine {
	t.Helper()
	args := append([]string{"machine", "create", "oci:" + fleet.shellImage, "--app", app, "--region", "ams", "--memory", "128"}, flags...)
	return ask[apiv1.Machine](t, append(args, "--", command)...)
}

func machine(t *testing.T, id drover.MachineID) apiv1.Machine {
	t.Helper()
	return ask[apiv1.Machine](t, "machine", "show", string(id))
}

// inside runs a command in a machine and returns what it printed.
func inside(t *testing.T, id drover.MachineID, command ...string) string {
	t.Helper()
	r := ask[apiv1.ExecResult](t, append([]string{"machine", "exec", string(id), "--"}, command...)...)
	if r.ExitCode != 0 {
		t.Fatalf("%v in machine %s: exit code %d, %s%s", command, id, r.ExitCode, r.Stdout, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}
