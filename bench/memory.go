package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// measureMemory fills one host with ten machines that write to their volumes, moves one there and back so that the storage daemon also
// hydrates, and reads the resident memory of agent and storage daemon at its peak.
func measureMemory(ctx context.Context, s setup) (results []result, err error) {
	const (
		machines   = 10
		agentLimit = 60 << 20
		daemon     = 100 << 20
	)
	f, err := raiseFleet(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close(ctx)) }()
	var first *writer
	for n := range machines {
		w, err := f.startWriter(ctx, fmt.Sprintf("m%d", n), "h1", 1, 32)
		if err != nil {
			return nil, err
		}
		defer w.stop()
		if first == nil {
			first = w
		}
	}
	for _, to := range []string{"h2", "h1"} {
		if _, _, err := first.move(ctx, to); err != nil {
			return nil, err
		}
	}
	var out []result
	for _, p := range []struct {
		name, role string
		limit      float64
	}{{"memory.agent", "worker", agentLimit}, {"memory.storage", "storage", daemon}} {
		peak, err := peakMemory(f.cli.Dir, "h1", p.role)
		if err != nil {
			return nil, err
		}
		out = append(out, compare(p.name, "B", "lower", "limit", []float64{peak}, []float64{p.limit}))
	}
	return out, nil
}

// peakMemory reads the highest resident set that a host's service ever had, in bytes (VmHWM in /proc/PID/status), without the memory that
// it shares now with guests whose disks it serves over vhost-user-blk, which is theirs (RssShmem).
func peakMemory(fleetDir, host, role string) (float64, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(line, []byte("\x00serve\x00"+role+"\x00")) || !bytes.Contains(line, []byte(filepath.Join(fleetDir, "hosts", host)+"/")) {
			continue
		}
		status, err := os.ReadFile(filepath.Join(filepath.Dir(path), "status"))
		if err != nil {
			return 0, err
		}
		peak, err := statusKiB(string(status), "VmHWM:")
		if err != nil {
			return 0, err
		}
		shared, err := statusKiB(string(status), "RssShmem:")
		return (peak - shared) * 1024, err
	}
	return 0, fmt.Errorf("no process serves %s on %s", role, host)
}

// statusKiB reads a field of /proc/PID/status.
func statusKiB(status, field string) (float64, error) {
	for l := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(l, field); ok && len(strings.Fields(rest)) > 0 {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, fmt.Errorf("a process' status has no %s", field)
}
