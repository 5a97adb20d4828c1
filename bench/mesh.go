package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"drover"
	"drover/internal/netdev"
)

const (
	// meshHosts is how many hosts the fleet of the mesh's bench has, meshMoves how often a machine moves in it.
	meshHosts = 20
	meshMoves = 40
	// meshGoal is by when packets of every host are to arrive at a machine's new place.
	meshGoal = 1.0
	// pings is how many round trips a turn of the latency has, and turns how many turns of both sides a run has: what else the machine does changes
	// within seconds.
	pings, turns = 400, 20
	// siteEnv makes a copy of this program a site of the mesh's bench.
	siteEnv = "DROVER_BENCH_SITE"
	// sitePatience bounds what one site may take for anything.
	sitePatience = time.Minute
)

// meshMachine is what moves.
var meshMachine = netip.MustParseAddr("fdaa:0:1:0:1::2")

// meshWorld is a bridge with sites: hosts, each a process in a network namespace of its own, and one that has the bus.
type meshWorld struct {
	ns    *netdev.Namespace
	log   io.Writer
	sites []*meshSite
}

// meshSite is one of them, and how it is told what to do.
type meshSite struct {
	number int
	in     io.WriteCloser
	out    *json.Decoder
	cmd    *exec.Cmd
}

// siteOrder is what a site is told, siteReply what it answers.
type siteOrder struct {
	Op      string
	Number  int
	Dir     string     `json:",omitempty"`
	To      netip.Addr `json:",omitzero"`
	Peer    sitePeer   `json:",omitzero"`
	Count   int        `json:",omitempty"`
	Machine netip.Addr `json:",omitzero"`
}

type siteReply struct {
	Error    string               `json:",omitempty"`
	Peer     sitePeer             `json:",omitzero"`
	At       time.Time            `json:",omitzero"`
	Arrivals map[string]time.Time `json:",omitempty"`
	Times    []time.Duration      `json:",omitempty"`
	Count    int                  `json:",omitempty"`
}

// sitePeer is what an end of a tunnel has to know of the other.
type sitePeer struct {
	Key      string
	Endpoint netip.AddrPort
	Address  netip.Addr
}

func newMeshWorld(log io.Writer) (*meshWorld, error) {
	ns, err := netdev.NewNamespace()
	if err != nil {
		return nil, err
	}
	if err := ns.AddBridge("br0"); err != nil {
		ns.Close()
		return nil, err
	}
	return &meshWorld{ns: ns, log: log}, nil
}

func (w *meshWorld) close() error {
	var failed []error
	for _, s := range w.sites {
		failed = append(failed, s.in.Close())
	}
	for _, s := range w.sites {
		failed = append(failed, s.cmd.Wait())
	}
	w.ns.Close()
	return errors.Join(failed...)
}

// start starts a site of the kind on the bridge.
func (w *meshWorld) start(kind string, number int, dir string) (*meshSite, siteReply, error) {
	s := &meshSite{number: number, cmd: exec.Command("/proc/self/exe")}
	s.cmd.Env, s.cmd.Stderr = append(os.Environ(), siteEnv+"="+kind), w.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	in, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, siteReply{}, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, siteReply{}, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, siteReply{}, err
	}
	s.in, s.out = in, json.NewDecoder(bufio.NewReader(out))
	w.sites = append(w.sites, s)
	port := fmt.Sprintf("p%d", number)
	err = errors.Join(w.ns.AddPort(port, "eth0", net.HardwareAddr{2, 0, 0, 0, 0, byte(number)}, s.cmd.Process.Pid), w.ns.Plug(port, "br0"))
	if err != nil {
		return nil, siteReply{}, err
	}
	r, err := s.do(siteOrder{Op: "open", Number: number, Dir: dir})
	return s, r, err
}

func (s *meshSite) do(o siteOrder) (r siteReply, err error) {
	if err := json.NewEncoder(s.in).Encode(o); err != nil {
		return r, err
	}
	if err := s.out.Decode(&r); err != nil {
		return r, err
	}
	if r.Error != "" {
		return r, fmt.Errorf("site %d: %s: %s", s.number, o.Op, r.Error)
	}
	return r, nil
}

// measureMesh measures how soon packets of every host follow a move in a fleet of 20 hosts, and what a round trip between machines of two hosts takes
// more than one through the same WireGuard alone.
func measureMesh(ctx context.Context, s setup) ([]result, error) {
	latency, err := measureMeshLatency(ctx, s)
	if err != nil {
		return nil, err
	}
	switched, err := measureMeshSwitch(ctx, s)
	return append(latency, switched...), err
}

// measureMeshSwitch lets every host send to a machine all the time, and moves the machine from host to host. What counts is the time from the write
// of the placement until the first packet of each other host has arrived at the new place.
func measureMeshSwitch(ctx context.Context, s setup) (results []result, err error) {
	w, err := newMeshWorld(s.log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	bus, _, err := w.start("bus", meshHosts+1, filepath.Join(s.dir, "bus"))
	if err != nil {
		return nil, err
	}
	var hosts []*meshSite
	for n := 1; n <= meshHosts; n++ {
		h, _, err := w.start("host", n, filepath.Join(s.dir, fmt.Sprintf("h%d", n)))
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, h)
	}
	at := 0
	move := func(to int) (map[string]time.Time, time.Time, error) {
		if _, err := hosts[at].do(siteOrder{Op: "leave"}); err != nil {
			return nil, time.Time{}, err
		}
		if _, err := hosts[to].do(siteOrder{Op: "take"}); err != nil {
			return nil, time.Time{}, err
		}
		r, err := bus.do(siteOrder{Op: "place", Number: to + 1})
		if err != nil {
			return nil, time.Time{}, err
		}
		a, err := hosts[to].do(siteOrder{Op: "arrivals", Count: meshHosts - 1})
		at = to
		return a.Arrivals, r.At, err
	}
	for _, h := range hosts {
		if _, err := h.do(siteOrder{Op: "meet", Count: meshHosts - 1}); err != nil {
			return nil, err
		}
	}
	for _, h := range hosts {
		if _, err := h.do(siteOrder{Op: "send"}); err != nil {
			return nil, err
		}
	}
	if _, _, err := move(1); err != nil { // the first sets the table up
		return nil, err
	}
	var all []float64
	for i := 0; i < meshMoves && ctx.Err() == nil; i++ {
		to := (at + 1 + i%(meshHosts-1)) % meshHosts
		arrivals, placed, err := move(to)
		if err != nil {
			return nil, err
		}
		worst := 0.0
		for _, t := range arrivals {
			all = append(all, max(0, t.Sub(placed).Seconds()))
			worst = max(worst, all[len(all)-1])
		}
		fmt.Fprintf(s.log, "move %d: packets of %d hosts arrived, the last after %.0f ms\n", i+1, len(arrivals), worst*1000)
	}
	slices.Sort(all)
	if len(all) < meshMoves*(meshHosts-1) {
		return nil, fmt.Errorf("only %d packets of %d arrived", len(all), meshMoves*(meshHosts-1))
	}
	quantile := func(percent int) []float64 { return []float64{all[(len(all)-1)*percent/100]} }
	return []result{compare("mesh.switch.p50", "s", "lower", "goal", quantile(50), []float64{meshGoal}),
		compare("mesh.switch.p99", "s", "lower", "goal", quantile(99), []float64{meshGoal})}, ctx.Err()
}

// measureMeshLatency measures round trips between machines of two hosts, in turn with those between the ends of a tunnel of WireGuard alone.
func measureMeshLatency(ctx context.Context, s setup) (results []result, err error) {
	w, err := newMeshWorld(s.log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	type pair struct {
		asks *meshSite
		to   netip.Addr
	}
	var pairs [2]pair // alone, mesh
	for i, kind := range []string{"alone", "pair"} {
		a, ra, err := w.start(kind, 2*i+1, "")
		if err != nil {
			return nil, err
		}
		b, rb, err := w.start(kind, 2*i+2, "")
		if err != nil {
			return nil, err
		}
		if _, err := a.do(siteOrder{Op: "peer", Number: 2*i + 2, Peer: rb.Peer, Machine: siteMachine(2*i + 2)}); err != nil {
			return nil, err
		}
		if _, err := b.do(siteOrder{Op: "peer", Number: 2*i + 1, Peer: ra.Peer, Machine: siteMachine(2*i + 1)}); err != nil {
			return nil, err
		}
		pairs[i] = pair{a, siteMachine(2*i + 2)}
	}
	var p50, p99 [2][]float64
	for turn := range turns*s.runs + 1 {
		for i, p := range pairs {
			r, err := p.asks.do(siteOrder{Op: "ping", To: p.to, Count: pings})
			if err != nil {
				return nil, err
			}
			if turn == 0 || ctx.Err() != nil {
				continue // the first is to warm up
			}
			slices.Sort(r.Times)
			p50[i] = append(p50[i], float64(r.Times[len(r.Times)/2].Nanoseconds())/1000)
			p99[i] = append(p99[i], float64(r.Times[len(r.Times)*99/100].Nanoseconds())/1000)
		}
	}
	return []result{compare("mesh.rtt.p50", "us", "lower", "wireguard-go alone", p50[1], p50[0]),
		compare("mesh.rtt.p99", "us", "lower", "wireguard-go alone", p99[1], p99[0])}, ctx.Err()
}

// siteMachine is the address of a site's own machine.
func siteMachine(number int) netip.Addr {
	a, err := drover.MachineAddress(1, uint64(100+number))
	if err != nil {
		panic(err) // the numbers are these
	}
	return a
}
