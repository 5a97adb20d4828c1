package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"drover"
	"drover/internal/netdev"
	"drover/mesh"
	"drover/natsbus"
	"drover/network"
)

const (
	sitePort   = 51820
	siteBus    = 4222
	siteTarget = 5005
	siteEcho   = 5006
	// sendEvery is how often each host sends to the machine: what is measured is as exact as that.
	sendEvery = 5 * time.Millisecond
)

// site is the process of one.
type site struct {
	ctx    context.Context
	kind   string
	number int
	log    *slog.Logger

	daemon *network.Daemon
	bus    *natsbus.HostBus
	conn   *natsbus.Conn
	table  *mesh.Table
	device *mesh.Device
	alone  *device.Device

	placements *natsbus.Bucket[drover.Placement]
	revision   uint64

	mu       sync.Mutex
	socket   *net.UDPConn
	arrivals map[string]time.Time
	arrived  chan struct{}
}

// serveSite obeys orders until there are no more.
func serveSite(kind string, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := &site{ctx: ctx, kind: kind, log: slog.New(slog.DiscardHandler), table: mesh.NewTable(), arrived: make(chan struct{}, 1)}
	orders := json.NewDecoder(bufio.NewReader(in))
	for {
		var o siteOrder
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		r, err := s.handle(o)
		if err != nil {
			r.Error = err.Error()
		}
		if err := json.NewEncoder(out).Encode(r); err != nil {
			return err
		}
	}
}

func (s *site) handle(o siteOrder) (r siteReply, err error) {
	ctx, cancel := context.WithTimeout(s.ctx, sitePatience)
	defer cancel()
	switch o.Op {
	case "open":
		return s.open(ctx, o)
	case "peer":
		return r, s.peer(o)
	case "ping":
		r.Times, err = s.ping(o.To, o.Count)
		return r, err
	case "place":
		return s.place(ctx, o.Number)
	case "meet":
		return r, s.until(ctx, func() bool {
			good := 0
			for _, l := range s.daemon.Status().Links {
				if l.State == string(mesh.LinkOK) {
					good++
				}
			}
			return good == o.Count
		})
	case "send":
		go s.send()
	case "take":
		return r, s.take()
	case "leave":
		return r, s.leave()
	case "arrivals":
		return s.await(ctx, o.Count)
	}
	return r, nil
}

func (s *site) until(ctx context.Context, ok func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

func siteUnderlay(number int) netip.Addr { return netip.AddrFrom4([4]byte{10, 78, 0, byte(number)}) }

func (s *site) open(ctx context.Context, o siteOrder) (r siteReply, err error) {
	s.number = o.Number
	here := siteUnderlay(o.Number)
	err = errors.Join(netdev.StartLoopback(), netdev.StartForwarding(), netdev.StartLink(ctx, "eth0", net.IPNet{IP: here.AsSlice(), Mask: net.CIDRMask(24, 32)}))
	if err != nil {
		return r, err
	}
	switch s.kind {
	case "bus":
		return r, s.openBus(ctx, o.Dir)
	case "host":
		return r, s.openHost(ctx, o.Dir)
	}
	key, err := mesh.NewPrivateKey()
	if err != nil {
		return r, err
	}
	address, err := drover.HostAddress(uint64(o.Number))
	if err != nil {
		return r, err
	}
	r.Peer = sitePeer{Key: key.Public(), Endpoint: netip.AddrPortFrom(here, sitePort), Address: address}
	if s.kind == "alone" {
		err = s.openAlone(key, address)
	} else {
		s.device, err = mesh.Open(mesh.Config{Name: netdev.MeshDevice, Key: key, Address: address, Port: sitePort, MTU: mesh.DefaultMTU, Log: s.log}, s.table)
	}
	if err == nil {
		err = netdev.AddLocal(siteMachine(o.Number))
	}
	if err == nil {
		err = s.echo()
	}
	return r, err
}

// openAlone is WireGuard with nothing of Drover: each end has the other's machine as an allowed address.
func (s *site) openAlone(key mesh.PrivateKey, address netip.Addr) error {
	if err := netdev.EnsureTUN(netdev.MeshDevice, mesh.DefaultMTU, address); err != nil {
		return err
	}
	dev, err := tun.CreateTUN(netdev.MeshDevice, mesh.DefaultMTU)
	if err != nil {
		return err
	}
	s.alone = device.NewDevice(dev, conn.NewDefaultBind(), &device.Logger{Verbosef: device.DiscardLogf, Errorf: device.DiscardLogf})
	private, err := mesh.HexKey(key.Reveal())
	if err != nil {
		return err
	}
	if err := s.alone.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\n", private, sitePort)); err != nil {
		return err
	}
	return s.alone.Up()
}

func (s *site) peer(o siteOrder) error {
	if s.alone != nil {
		key, err := mesh.HexKey(o.Peer.Key)
		if err != nil {
			return err
		}
		return s.alone.IpcSet(fmt.Sprintf("public_key=%s\nendpoint=%s\nallowed_ip=%s/128\n", key, o.Peer.Endpoint, o.Machine))
	}
	s.table.Set(o.Machine, o.Peer.Address)
	return s.device.SetPeer(mesh.Peer{Host: drover.HostID(fmt.Sprintf("h%d", o.Number)), Address: o.Peer.Address, PublicKey: o.Peer.Key, Endpoint: o.Peer.Endpoint})
}

// echo answers at the site's own machine.
func (s *site) echo() error {
	c, err := net.ListenUDP("udp6", net.UDPAddrFromAddrPort(netip.AddrPortFrom(siteMachine(s.number), siteEcho)))
	if err != nil {
		return err
	}
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if _, err := c.WriteToUDPAddrPort(b[:n], from); err != nil {
				fmt.Fprintln(os.Stderr, "echo:", err)
			}
		}
	}()
	return nil
}

// ping measures round trips to another site's machine, one after another.
func (s *site) ping(to netip.Addr, count int) ([]time.Duration, error) {
	c, err := net.DialUDP("udp6", net.UDPAddrFromAddrPort(netip.AddrPortFrom(siteMachine(s.number), 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, siteEcho)))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	times, b := make([]time.Duration, 0, count), make([]byte, 64)
	for lost := 0; len(times) < count; {
		begun := time.Now()
		if _, err := c.Write(b); err != nil {
			return nil, err
		}
		if err := c.SetReadDeadline(begun.Add(time.Second)); err != nil {
			return nil, err
		}
		if _, err := c.Read(b); err != nil {
			if lost++; lost > 20 {
				return nil, fmt.Errorf("%d packets to %s were lost: %w", lost, to, err)
			}
			continue
		}
		times = append(times, time.Since(begun))
	}
	return times, nil
}

// openBus starts the fleet's store, with one machine.
func (s *site) openBus(ctx context.Context, dir string) error {
	server, err := natsbus.StartServer(natsbus.ServerConfig{Name: "bus", Host: siteUnderlay(s.number).String(), Port: siteBus, StoreDir: dir, Log: s.log})
	if err != nil {
		return err
	}
	context.AfterFunc(s.ctx, server.Shutdown)
	conn, err := natsbus.Connect(s.ctx, natsbus.Config{Name: "bus", InProcess: server, Log: s.log})
	if err != nil {
		return err
	}
	s.conn = conn
	machines, err := natsbus.OpenBucket[drover.Machine](ctx, conn, natsbus.BucketMachines, natsbus.BucketOptions{})
	if err != nil {
		return err
	}
	if s.placements, err = natsbus.OpenBucket[drover.Placement](ctx, conn, natsbus.BucketPlacements, natsbus.BucketOptions{}); err != nil {
		return err
	}
	_, statuses := natsbus.OpenBucket[drover.MachineStatus](ctx, conn, natsbus.BucketStatus, natsbus.BucketOptions{})
	_, hosts := natsbus.OpenBucket[drover.HostInfo](ctx, conn, natsbus.BucketHosts, natsbus.BucketOptions{})
	_, identities := natsbus.OpenBucket[drover.HostIdentity](ctx, conn, natsbus.BucketIdentities, natsbus.BucketOptions{})
	_, counters := natsbus.OpenBucket[uint64](ctx, conn, natsbus.BucketCounters, natsbus.BucketOptions{})
	_, peers := natsbus.OpenBucket[drover.WireGuardPeer](ctx, conn, natsbus.BucketWireGuard, natsbus.BucketOptions{})
	if err := errors.Join(statuses, hosts, identities, counters, peers); err != nil {
		return err
	}
	if _, err := machines.Put(ctx, "m1", drover.Machine{ID: "m1", App: "a", Address: meshMachine.String()}); err != nil {
		return err
	}
	go func() {
		if err := natsbus.ServeIdentities(s.ctx, conn); err != nil && s.ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "bus:", err)
		}
	}()
	return nil
}

// place makes a host the machine's, as the switch of a move does. The time is that before the write.
func (s *site) place(ctx context.Context, host int) (r siteReply, err error) {
	r.At = time.Now()
	p := drover.Placement{Machine: "m1", Host: drover.HostID(fmt.Sprintf("h%d", host))}
	if s.revision == 0 {
		s.revision, err = s.placements.Create(ctx, "m1", p)
	} else {
		s.revision, err = s.placements.Update(ctx, "m1", p, s.revision)
	}
	return r, err
}

// openHost starts the network of a host, as drover serve mesh does, and tells the fleet of it, as the agent does.
func (s *site) openHost(ctx context.Context, dir string) error {
	id := drover.HostID(fmt.Sprintf("h%d", s.number))
	conn, err := natsbus.Connect(s.ctx, natsbus.Config{Name: string(id), URLs: []string{fmt.Sprintf("nats://%s:%d", siteUnderlay(meshHosts+1), siteBus)}, Log: s.log})
	if err != nil {
		return err
	}
	s.bus = natsbus.NewHostBus(conn, id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	s.daemon, err = network.New(network.Config{Host: id, Dir: dir, RunDir: dir, Listen: netip.AddrPortFrom(siteUnderlay(s.number), sitePort), MTU: mesh.DefaultMTU, Bus: s.bus, Log: s.log})
	if err != nil {
		return err
	}
	go func() {
		err := s.daemon.Run(s.ctx, func(ctx context.Context) error { <-ctx.Done(); return nil })
		if err != nil && s.ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, id, err)
		}
	}()
	if err := s.until(ctx, func() bool { return s.daemon.Status().Mesh != nil }); err != nil {
		return err
	}
	if err := netdev.AddLocal(siteMachine(s.number)); err != nil {
		return err
	}
	return s.until(ctx, func() bool {
		err = s.bus.PublishInfo(ctx, drover.HostInfo{ID: id, Region: "ams", Mesh: s.daemon.Status().Mesh})
		return err == nil
	})
}

// send sends to the machine for ever, and says from which host.
func (s *site) send() {
	c, err := net.ListenUDP("udp6", net.UDPAddrFromAddrPort(netip.AddrPortFrom(siteMachine(s.number), 0)))
	if err != nil {
		fmt.Fprintln(os.Stderr, "send:", err)
		return
	}
	defer c.Close()
	text, to := fmt.Appendf(nil, "h%d", s.number), netip.AddrPortFrom(meshMachine, siteTarget)
	tick := time.NewTicker(sendEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
			_, _ = c.WriteToUDPAddrPort(text, to) // what does not arrive is what is measured
		}
	}
}

// take gives this host the machine: its address, and who takes in what comes.
func (s *site) take() error {
	s.mu.Lock()
	s.arrivals = map[string]time.Time{}
	s.mu.Unlock()
	if err := netdev.AddLocal(meshMachine); err != nil {
		return err
	}
	c, err := net.ListenUDP("udp6", net.UDPAddrFromAddrPort(netip.AddrPortFrom(meshMachine, siteTarget)))
	if err != nil {
		return err
	}
	s.socket = c
	go func() {
		b := make([]byte, 64)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			s.mu.Lock()
			if from := string(b[:n]); s.arrivals[from].IsZero() && from != fmt.Sprintf("h%d", s.number) {
				s.arrivals[from] = time.Now()
				select {
				case s.arrived <- struct{}{}:
				default:
				}
			}
			s.mu.Unlock()
		}
	}()
	return nil
}

// leave takes the machine's address away.
func (s *site) leave() error {
	if s.socket == nil {
		return nil
	}
	s.socket.Close()
	s.socket = nil
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.AddrDel(lo, &netlink.Addr{IPNet: &net.IPNet{IP: meshMachine.AsSlice(), Mask: net.CIDRMask(128, 128)}})
}

// await waits until packets of so many hosts have arrived.
func (s *site) await(ctx context.Context, count int) (r siteReply, err error) {
	for {
		s.mu.Lock()
		have := len(s.arrivals)
		if have >= count {
			r.Arrivals = s.arrivals
			s.mu.Unlock()
			return r, nil
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return r, fmt.Errorf("packets of %d hosts of %d arrived", have, count)
		case <-s.arrived:
		}
	}
}
