package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"drover"
	"drover/internal/testkit"
)

// nbdSize is the size of the files that measureNBD works on. They fit the page cache, so that the servers are compared and not the disk.
const nbdSize = drover.GiB

// measureNBD lets fio read and write a layer of the storage daemon over its unix socket, and the same data served by qemu-nbd and
// by nbdkit's file plugin. Each result compares with the peer that is better at it.
func measureNBD(ctx context.Context, s setup) (results []result, err error) {
	raw := filepath.Join(s.dir, "raw")
	if err := writeRandom(raw, nbdSize, nbdSize); err != nil {
		return nil, err
	}
	servers, err := startNBDServers(ctx, s, raw)
	defer func() {
		for _, server := range servers {
			err = errors.Join(err, server.stop())
		}
	}()
	if err != nil {
		return nil, err
	}
	measured := make(map[string]map[string][]fioOutcome) // by load and server
	for run := range s.runs {
		for _, load := range nbdLoads {
			if measured[load.name] == nil {
				measured[load.name] = make(map[string][]fioOutcome)
			}
			for i := range servers {
				server := servers[(i+run)%len(servers)] // another one first in each run
				got, err := load.run(ctx, server.uri)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", server.name, err)
				}
				measured[load.name][server.name] = append(measured[load.name][server.name], got)
				fmt.Fprintf(s.log, "run %d: %s %s: %.0f IOPS, p50 %.0f us, p99 %.0f us\n",
					run+1, load.name, server.name, got.iops, got.p50.Seconds()*1e6, got.p99.Seconds()*1e6)
			}
		}
	}
	for _, load := range nbdLoads {
		of := measured[load.name]
		results = append(results, bestPeer("nbd."+load.name, "IOPS", "higher", of, func(o fioOutcome) float64 { return o.iops }))
		if !load.sequential {
			results = append(results, bestPeer("nbd."+load.name+".p99", "us", "lower", of, func(o fioOutcome) float64 { return o.p99.Seconds() * 1e6 }))
		}
	}
	return results, nil
}

// The names of the servers.
const (
	serverDrover = "drover"
	serverQemu   = "qemu-nbd"
	serverNbdkit = "nbdkit file"
)

// bestPeer compares with the peer whose median is the better one.
func bestPeer(name, unit, better string, of map[string][]fioOutcome, value func(fioOutcome) float64) result {
	values := func(server string) (v []float64) {
		for _, o := range of[server] {
			v = append(v, value(o))
		}
		return v
	}
	best := serverQemu
	if q, n := median(values(serverQemu)), median(values(serverNbdkit)); (n > q) == (better == "higher") {
		best = serverNbdkit
	}
	return compare(name, unit, better, best, values(serverDrover), values(best))
}

// nbdLoads are what fio does. The same block is never asked for twice at the same time, as a guest's page cache would have it.
var nbdLoads = []fioLoad{
	{name: "read.qd1", rw: "randread", block: "4k", depth: 1},
	{name: "read.qd32", rw: "randread", block: "4k", depth: 32},
	{name: "write.qd1", rw: "randwrite", block: "4k", depth: 1},
	{name: "write.qd32", rw: "randwrite", block: "4k", depth: 32},
	{name: "seqread", rw: "read", block: "1M", depth: 8, sequential: true},
}

// nbdServer is one server with its export.
type nbdServer struct {
	name string
	uri  string
	stop func() error
}

// startNBDServers starts all three on the content of the raw file. What was started is returned with an error too.
func startNBDServers(ctx context.Context, s setup, raw string) (servers []nbdServer, err error) {
	d, err := startDaemon(ctx, s, "n")
	if err != nil {
		return nil, err
	}
	servers = append(servers, nbdServer{name: serverDrover, stop: d.stop})
	if servers[0].uri, err = d.fillVolume(ctx, "vol_bench", raw, nbdSize); err != nil {
		return servers, err
	}
	socket := filepath.Join(s.dir, "qemu.sock")
	server, err := startPeer(ctx, serverQemu, socket, "qemu-nbd", "-f", "raw", "-k", socket, "-e", "8", "-t", raw)
	if err != nil {
		return servers, err
	}
	servers = append(servers, server)
	socket = filepath.Join(s.dir, "nbdkit.sock")
	server, err = startPeer(ctx, serverNbdkit, socket, "nbdkit", "-f", "-U", socket, "file", raw)
	if err != nil {
		return servers, err
	}
	return append(servers, server), warm(raw)
}

func nbdUnixURI(socket, export string) string {
	return "nbd+unix:///" + export + "?socket=" + url.QueryEscape(socket)
}

// startPeer starts a server of other people that listens on a unix socket.
func startPeer(ctx context.Context, name, socket string, args ...string) (nbdServer, error) {
	stop, err := startProcess(ctx, name, "unix", socket, args...)
	return nbdServer{name: name, uri: nbdUnixURI(socket, ""), stop: stop}, err
}

// startProcess starts a server of other people and waits until it listens.
func startProcess(ctx context.Context, name, network, address string, args ...string) (stop func() error, err error) {
	cmd := exec.Command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() error {
		err := cmd.Process.Kill()
		cmd.Wait() //nolint:errcheck // it says that it was killed
		return err
	}
	err = testkit.Eventually(ctx, 10*time.Second, "the start of "+name, func() (bool, error) {
		c, err := net.Dial(network, address)
		if err != nil {
			return false, nil
		}
		return true, c.Close()
	})
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// warm reads a file, so that it is in the page cache.
func warm(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, f)
	return errors.Join(err, f.Close())
}
