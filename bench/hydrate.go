package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"drover"
)

// measureHydration fills layers from another storage daemon over TLS, both processes of their own on this machine, and copies the same
// data with nbdcopy from qemu-nbd and from nbdkit over TLS with the same certificates to a file. All end with the data durable.
func measureHydration(ctx context.Context, s setup) (results []result, err error) {
	source, err := startDaemon(ctx, s, "a")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, source.stop()) }()
	target, err := startDaemon(ctx, s, "b")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, target.stop()) }()
	for _, c := range []hydrationCase{
		{name: "hydrate.full", size: s.size, data: s.size},
		{name: "hydrate.sparse", size: 4 * s.size, data: s.size / 2},
	} {
		of, err := c.measure(ctx, s, source, target)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		results = append(results, of...)
	}
	return results, nil
}

// hydrationCase is one volume: its size and how much of it is data.
type hydrationCase struct {
	name       string
	size, data drover.Bytes
}

// measure makes the volume on the source and copies it, each way in turn.
func (c hydrationCase) measure(ctx context.Context, s setup, source, target *daemon) ([]result, error) {
	raw := filepath.Join(s.dir, c.name)
	if err := writeRandom(raw, c.size, c.data); err != nil {
		return nil, err
	}
	layer := drover.LayerID("vol_" + c.name[len("hydrate."):])
	export, err := source.offer(ctx, layer, raw, c.size, "b")
	if err != nil {
		return nil, err
	}
	took := make(map[string][]float64)
	var copied, allocated []float64
	for run := range s.runs {
		for i := range 3 {
			switch i = (i + run) % 3; i { // another one first in each run
			case 0:
				status, d, err := target.hydrate(ctx, drover.LayerID(fmt.Sprintf("%s.%d", layer, run)), export)
				if err != nil {
					return nil, err
				}
				took[serverDrover] = append(took[serverDrover], mibPerSecond(c.data, d))
				copied, allocated = append(copied, float64(status.Hydration.Copied)), append(allocated, float64(export.Allocated))
			default:
				name := []string{serverQemu, serverNbdkit}[i-1]
				d, err := nbdcopy(ctx, s.dir, name, raw)
				if err != nil {
					return nil, err
				}
				took[name] = append(took[name], mibPerSecond(c.data, d))
			}
		}
		fmt.Fprintf(s.log, "run %d: %s: hydration %.0f MiB/s, nbdcopy from qemu-nbd %.0f, from nbdkit %.0f\n",
			run+1, c.name, took[serverDrover][run], took[serverQemu][run], took[serverNbdkit][run])
	}
	peer := serverQemu
	if median(took[serverNbdkit]) > median(took[serverQemu]) {
		peer = serverNbdkit
	}
	return []result{
		compare(c.name+".speed", "MiB/s", "higher", "nbdcopy over TLS from "+peer, took[serverDrover], took[peer]),
		compare(c.name+".bytes", "B", "lower", "allocated", copied, allocated),
	}, errors.Join(os.Remove(raw), source.Unexport(ctx, layer, "b"), source.Delete(ctx, layer))
}

func mibPerSecond(n drover.Bytes, d time.Duration) float64 {
	return float64(n) / float64(drover.MiB) / d.Seconds()
}

// nbdcopy copies the raw file from a server over TLS to a new file, durably, and removes it. The certificates are those of the daemons.
func nbdcopy(ctx context.Context, dir, name, raw string) (time.Duration, error) {
	address, err := freeAddress()
	if err != nil {
		return 0, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0, err
	}
	server, client := filepath.Join(dir, "a", "tls"), filepath.Join(dir, "b", "tls")
	args := []string{"nbdkit", "-f", "-r", "-i", host, "-p", port, "--tls=require", "--tls-verify-peer", "--tls-certificates=" + server, "file", raw}
	if name == serverQemu {
		args = []string{"qemu-nbd", "-f", "raw", "-r", "-t", "-e", "8", "-b", host, "-p", port,
			"--object", "tls-creds-x509,id=tls,endpoint=server,verify-peer=yes,dir=" + server, "--tls-creds", "tls", raw}
	}
	stop, err := startProcess(ctx, name, "tcp", address, args...)
	if err != nil {
		return 0, err
	}
	to := filepath.Join(dir, "copy")
	began := time.Now()
	uri := "nbds://" + address + "/?tls-verify-peer=true&tls-certificates=" + client
	out, err := exec.CommandContext(ctx, "nbdcopy", "--flush", uri, to).CombinedOutput()
	took := time.Since(began)
	if err != nil {
		err = fmt.Errorf("nbdcopy from %s: %w: %s", name, err, out)
	}
	return took, errors.Join(err, stop(), os.Remove(to))
}
