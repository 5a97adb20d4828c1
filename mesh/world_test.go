package mesh

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/device"

	"drover"
	"drover/internal/netdev"
)

// The copies of the test binary: "bridge" has all tests in a network of its own, "site" is one host.
const roleEnv = "MESH_TEST_ROLE"

// TestMain runs every test in a network namespace of its own, where the sites get theirs.
func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "bridge":
		os.Exit(m.Run())
	case "site":
		if err := serveSite(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "site:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), roleEnv+"=bridge")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "in the namespace:", err)
		os.Exit(1)
	}
}

// site is a host in a network namespace of its own; its machines are addresses that it has itself.
type site struct {
	t      testing.TB
	number int
	id     drover.HostID
	peer   Peer
	in     io.Writer
	out    *json.Decoder
	cmd    *exec.Cmd
}

// order is what a test asks of a site, reply what comes back.
type order struct {
	Op           string
	Number       int
	Peer         Peer
	Machine, Via netip.Addr
	From, To     netip.AddrPort
	Text         string
	Size         int
	MTU          int
	Tries        int
}

type reply struct {
	Error string
	Text  string
	Links []Link
	Count uint64
	Users []UserSeen
	Hosts []drover.HostID
	Twice uint64
}

// world is a bridge with sites.
type world struct {
	t  testing.TB
	ns *netdev.Namespace
}

func newWorld(t testing.TB) *world {
	t.Helper()
	ns, err := netdev.NewNamespace()
	if err != nil {
		t.Skipf("network namespaces are not allowed here: %v", err)
	}
	t.Cleanup(ns.Close)
	if err := ns.AddBridge("br0"); err != nil {
		t.Fatal(err)
	}
	return &world{t, ns}
}

// site starts a host.
func (w *world) site(number int) *site {
	w.t.Helper()
	return w.siteOf(number, "mesh")
}

// siteOf starts a host with a mesh, or with WireGuard "alone".
func (w *world) siteOf(number int, kind string) *site {
	w.t.Helper()
	return w.start(number, order{Op: "open", Number: number, Text: kind})
}

// person starts what is no host: somebody's computer, with WireGuard alone and the address of a peer.
func (w *world) person(number int, address netip.Addr) *site {
	w.t.Helper()
	return w.start(number, order{Op: "open", Number: number, Text: "alone", Machine: address})
}

func (w *world) start(number int, open order) *site {
	w.t.Helper()
	s := &site{t: w.t, number: number, id: drover.HostID(fmt.Sprintf("h%d", number)), cmd: exec.Command("/proc/self/exe")}
	s.cmd.Env, s.cmd.Stderr = append(os.Environ(), roleEnv+"=site"), os.Stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	in, err := s.cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		in.Close()
		if err := s.cmd.Wait(); err != nil {
			w.t.Errorf("site %d: %v", number, err)
		}
	})
	s.in, s.out = in, json.NewDecoder(bufio.NewReader(out))
	port := fmt.Sprintf("p%d", number)
	if err := errors.Join(w.ns.AddPort(port, "eth0", net.HardwareAddr{2, 0, 0, 0, 0, byte(number)}, s.cmd.Process.Pid), w.ns.Plug(port, "br0")); err != nil {
		w.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(s.do(open).Text), &s.peer); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// join makes all sites peers of each other.
func join(sites ...*site) {
	for _, a := range sites {
		for _, b := range sites {
			if a != b {
				a.do(order{Op: "peer", Peer: b.peer})
			}
		}
	}
}

func (s *site) try(o order) (reply, error) {
	s.t.Helper()
	if err := json.NewEncoder(s.in).Encode(o); err != nil {
		s.t.Fatalf("site %d: %v", s.number, err)
	}
	var r reply
	if err := s.out.Decode(&r); err != nil {
		s.t.Fatalf("site %d: %v", s.number, err)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

func (s *site) do(o order) reply {
	s.t.Helper()
	r, err := s.try(o)
	if err != nil {
		s.t.Fatalf("site %d: %s: %v", s.number, o.Op, err)
	}
	return r
}

func (s *site) has(machine netip.Addr)  { s.t.Helper(); s.do(order{Op: "machine", Machine: machine}) }
func (s *site) lost(machine netip.Addr) { s.t.Helper(); s.do(order{Op: "nomachine", Machine: machine}) }
func (s *site) routes(machine netip.Addr, by *site) {
	s.t.Helper()
	s.do(order{Op: "route", Machine: machine, Via: by.peer.Address})
}

// asks sends a datagram of the size from one machine to another and returns who answered it; "" for nobody.
func (s *site) asks(from, to netip.Addr, size int) string {
	s.t.Helper()
	return s.do(order{Op: "ask", From: netip.AddrPortFrom(from, 0), To: netip.AddrPortFrom(to, echoPort), Size: size}).Text
}

const (
	echoPort   = 7
	sitePort   = 51820
	answerWait = 250 * time.Millisecond
	// answerTries is as long as WireGuard may need for a tunnel: it sends a first packet that was lost again after 5 s.
	answerTries = 60
)

// siteProcess is the state of a site's process.
type siteProcess struct {
	number int
	device *Device
	table  *Table
	prober *Prober
	alone  *device.Device
	echoes map[netip.Addr]net.PacketConn
	streams
}

func serveSite(in io.Reader, out io.Writer) error {
	p := &siteProcess{table: NewTable(), echoes: map[netip.Addr]net.PacketConn{}}
	orders := json.NewDecoder(in)
	for {
		var o order
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		r, err := p.handle(o)
		if err != nil {
			r.Error = err.Error()
		}
		if err := json.NewEncoder(out).Encode(r); err != nil {
			return err
		}
	}
}

func (p *siteProcess) handle(o order) (r reply, err error) {
	switch o.Op {
	case "open":
		return p.open(o.Number, o.Text == "alone", o.Machine)
	case "sink":
		return r, sink()
	case "pump":
		r.Count, err = pump(o.To)
		return r, err
	case "no-peer":
		return r, p.device.RemovePeer(o.Peer.Host)
	case "peer":
		if p.alone != nil {
			key, err := HexKey(o.Peer.PublicKey)
			if err != nil {
				return r, err
			}
			return r, p.alone.IpcSet(fmt.Sprintf("public_key=%s\nendpoint=%s\nallowed_ip=%s/128\n", key, o.Peer.Endpoint, o.Peer.Address))
		}
		return r, p.device.SetPeer(o.Peer)
	case "gateway": // all private addresses are tried by way of this host
		key, err := HexKey(o.Peer.PublicKey)
		if err != nil {
			return r, err
		}
		return r, p.alone.IpcSet(fmt.Sprintf("replace_peers=true\npublic_key=%s\nendpoint=%s\nallowed_ip=%s\n", key, o.Peer.Endpoint, drover.PrivateNetworks()))
	case "user":
		return r, p.device.SetUser(User{PublicKey: o.Peer.PublicKey, Address: o.Peer.Address, Endpoint: o.Peer.Endpoint})
	case "nouser":
		return r, p.device.RemoveUser(o.Peer.PublicKey)
	case "users":
		r.Users, err = p.device.Users()
		return r, err
	case "route":
		p.table.Set(o.Machine, o.Via)
	case "unroute":
		p.table.Remove(o.Machine)
	case "machine":
		return r, p.machine(o.Machine, cmp.Or(o.To.Port(), echoPort))
	case "nomachine":
		return r, p.noMachine(o.Machine)
	case "ask":
		r.Text = ask(o)
	case "links":
		r.Links = p.prober.Links()
	case "begin":
		return p.begin()
	case "promote":
		ctx, cancel := contextFor(10 * time.Second)
		defer cancel()
		return r, p.device.Promote(ctx, o.Text == "people")
	case "withdraw":
		p.device.Withdraw(time.Now())
	case "sends-by-next":
		r.Hosts = p.device.SendsByNext(time.Now())
	case "drop-next":
		p.device.DropNext()
	case "unconfirmed":
		r.Hosts = p.device.Unconfirmed(time.Now())
	case "send":
		return r, p.send(netip.AddrPortFrom(o.From.Addr(), o.From.Port()), o.To)
	case "sent":
		r.Count = p.sent()
	case "receive":
		return r, p.receive(o.To)
	case "received":
		r.Count, r.Twice = p.received()
	case "dropped":
		r.Count, _ = p.table.Dropped()
	case "shell":
		b, err := exec.Command("sh", "-c", o.Text).CombinedOutput()
		return reply{Text: string(b)}, err
	}
	return r, nil
}

func (p *siteProcess) open(number int, alone bool, own netip.Addr) (r reply, err error) {
	key, err := NewPrivateKey()
	if err != nil {
		return r, err
	}
	address, err := drover.HostAddress(uint64(number))
	if err != nil {
		return r, err
	}
	if own.IsValid() {
		address = own
	}
	p.number = number
	underlay := netip.AddrFrom4([4]byte{10, 77, 0, byte(number)})
	if err := errors.Join(netdev.StartLoopback(), netdev.StartForwarding()); err != nil {
		return r, err
	}
	ctx, cancel := contextFor(10 * time.Second)
	defer cancel()
	if err := netdev.StartLink(ctx, "eth0", net.IPNet{IP: underlay.AsSlice(), Mask: net.CIDRMask(24, 32)}); err != nil {
		return r, err
	}
	text, err := json.Marshal(Peer{Host: drover.HostID(fmt.Sprintf("h%d", number)), Address: address, PublicKey: key.Public(), Endpoint: netip.AddrPortFrom(underlay, sitePort)})
	if err != nil {
		return r, err
	}
	if r.Text = string(text); alone {
		return r, p.openAlone(key, address)
	}
	log := slog.New(slog.DiscardHandler)
	p.device, err = Open(Config{Name: "drover0", Key: key, Address: address, Port: sitePort, MTU: DefaultMTU, Log: log}, p.table)
	if err != nil {
		return r, err
	}
	p.prober = NewProber(drover.HostID(fmt.Sprintf("h%d", number)), p.device, log)
	go func() {
		if err := p.prober.Run(backgroundContext()); err != nil {
			fmt.Fprintln(os.Stderr, "prober:", err)
			os.Exit(1)
		}
	}()
	return r, nil
}

// machine gives this site the machine: an address at which something answers with the number of the site.
func (p *siteProcess) machine(a netip.Addr, port uint16) error {
	if err := netdev.AddLocal(a); err != nil {
		return err
	}
	c, err := net.ListenPacket("udp6", netip.AddrPortFrom(a, port).String())
	if err != nil {
		return err
	}
	p.echoes[a] = c
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			copy(b, fmt.Sprintf("h%d ", p.number))
			if _, err := c.WriteTo(b[:n], from); err != nil {
				fmt.Fprintln(os.Stderr, "echo:", err)
			}
		}
	}()
	return nil
}

func (p *siteProcess) noMachine(a netip.Addr) error {
	p.echoes[a].Close()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.AddrDel(lo, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(128, 128)}})
}

func ask(o order) string {
	c, err := net.DialUDP("udp6", net.UDPAddrFromAddrPort(o.From), net.UDPAddrFromAddrPort(o.To))
	if err != nil {
		return "cannot ask: " + err.Error()
	}
	defer c.Close()
	b := make([]byte, 65536)
	for range cmp.Or(o.Tries, answerTries) {
		if _, err := c.Write(make([]byte, max(o.Size, 3))); err != nil {
			return "cannot ask: " + err.Error()
		}
		if err := c.SetReadDeadline(time.Now().Add(answerWait)); err != nil {
			return err.Error()
		}
		if n, err := c.Read(b); err == nil && n >= o.Size {
			who, _, _ := strings.Cut(string(b[:n]), " ")
			return who
		}
	}
	return ""
}
