package dev

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"drover"
	"drover/internal/durable"
	"drover/internal/fault"
	"drover/internal/hostconf"
	"drover/internal/sockets"
)

// TestMain makes the test binary play the drover program for the fleets that the tests bring up: rack and hosts are the real ones,
// the services are small ones that talk to each other over the fleet's network as the real ones do.
func TestMain(m *testing.M) {
	// The race detector holds each process for a second at its end; fleets have many.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	if len(os.Args) < 3 || os.Args[1] != "dev" && os.Args[1] != "serve" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err := play(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// play runs one of the commands that package dev starts.
func play(ctx context.Context, args []string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	flag := func(name string) string {
		for i, a := range args {
			if a == name {
				return args[i+1]
			}
		}
		return ""
	}
	switch strings.Join(args[:2], " ") {
	case "dev probe":
		return RunProbe(ctx, "/proc/self/exe", args[2])
	case "dev rack":
		return RunRack(ctx, RackOptions{Dir: flag("--dir"), Mode: Mode(flag("--mode")), Reason: flag("--reason"), Exe: os.Args[0], Log: log})
	case "dev host":
		return RunHost(ctx, HostOptions{Dir: flag("--dir"), ID: drover.HostID(args[len(args)-1]), Mode: Mode(flag("--mode")), Exe: os.Args[0], Log: log})
	}
	c, err := hostconf.Load(flag("--config"))
	if err != nil {
		return err
	}
	fault.FromEnv(os.Getenv).Hit(args[1] + ".start")
	switch args[1] {
	case "control":
		return playControl(ctx, c)
	case "worker":
		return playWorker(ctx, c)
	case "storage":
		return playStorage(ctx, c)
	case "mesh":
		<-ctx.Done()
		return nil
	}
	return fmt.Errorf("unknown command %v", args)
}

// playControl registers workers that report on the bus's address and lists them on the API.
func playControl(ctx context.Context, c *hostconf.Config) error {
	if err := durable.WriteFile(c.API.TokenFile, []byte("secret\n"), 0o600); err != nil {
		return err
	}
	bus, err := net.Listen("tcp", c.Bus.Listen)
	if err != nil {
		return err
	}
	api, err := net.FileListener(os.NewFile(3, "api"))
	if err != nil {
		return err
	}
	var mu sync.Mutex
	seen := map[drover.HostID]time.Time{}
	go func() {
		for {
			conn, err := bus.Accept()
			if err != nil {
				return
			}
			go func() {
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					mu.Lock()
					seen[drover.HostID(lines.Text())] = time.Now()
					mu.Unlock()
				}
			}()
		}
	}()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(w, "denied", http.StatusUnauthorized)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		hosts := []drover.HostInfo{}
		for id, at := range seen {
			if time.Since(at) < time.Second {
				hosts = append(hosts, drover.HostInfo{ID: id, Status: drover.HostOK})
			}
		}
		json.NewEncoder(w).Encode(hosts)
	})}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.Serve(api); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// playWorker reports to the bus, notes each start in its data directory, and leaves a process behind that has nothing to do with it
// any more, as a VM has not.
func playWorker(ctx context.Context, c *hostconf.Config) error {
	starts, err := os.OpenFile(filepath.Join(c.DataDir, "starts"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	fmt.Fprintln(starts, "started")
	console, err := os.Create(filepath.Join(c.DataDir, "console"))
	if err != nil {
		return err
	}
	vm := exec.Command("/bin/sh", "-c", "sleep 1000 & exec sleep 1000")
	vm.Env = []string{"PATH=/bin:/usr/bin"} // nothing tells where it came from
	vm.Stdout = console
	vm.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := vm.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.RunDir, "vm.pid"), []byte(fmt.Sprint(vm.Process.Pid)), 0o600); err != nil {
		return err
	}
	u, err := url.Parse(c.Bus.URLs[0])
	if err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var conn net.Conn
	for {
		if conn == nil {
			conn, _ = net.DialTimeout("tcp", u.Host, time.Second)
		}
		if conn != nil {
			conn.SetWriteDeadline(time.Now().Add(time.Second))
			if _, err := fmt.Fprintln(conn, c.ID); err != nil {
				conn.Close()
				conn = nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// playStorage answers on the socket that it was started with.
func playStorage(ctx context.Context, c *hostconf.Config) error {
	l, err := sockets.Inherited(os.Getenv)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		conn, err := l.Accept()
		if err != nil {
			return nil
		}
		fmt.Fprintln(conn, c.ID)
		conn.Close()
	}
}
