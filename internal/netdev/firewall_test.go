package netdev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drover"
)

// wire is the far end of a tap or of the mesh's device: what a guest, or another host, has in its hand. It may send whatever it likes.
type wire struct {
	t    *testing.T
	file *os.File
	// ethernet is put before each packet on a tap.
	ethernet []byte
}

// vnetLen is the length of the header before each frame (struct virtio_net_hdr).
const vnetLen = 10

func openWire(t *testing.T, name string, flags uint16, ethernet []byte) *wire {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(flags | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	w := &wire{t, os.NewFile(uintptr(fd), name), ethernet}
	t.Cleanup(func() { w.file.Close() })
	return w
}

func (w *wire) send(packet []byte) {
	w.t.Helper()
	if _, err := w.file.Write(append(append(make([]byte, vnetLen), w.ethernet...), packet...)); err != nil {
		w.t.Fatal(err)
	}
}

// gets reports whether a packet with the text comes within the time.
func (w *wire) gets(text string, within time.Duration) bool {
	w.t.Helper()
	if err := w.file.SetReadDeadline(time.Now().Add(within)); err != nil {
		w.t.Fatal(err)
	}
	b := make([]byte, 65536)
	for {
		n, err := w.file.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		if err != nil {
			w.t.Fatal(err)
		}
		if bytes.Contains(b[:n], []byte(text)) {
			return true
		}
	}
}

const testPort = 4242

// udp6, tcp6 and icmp6 make packets with right checksums.
func udp6(from, to netip.Addr, port uint16, text string) []byte {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b, testPort)
	binary.BigEndian.PutUint16(b[2:], port)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(text)))
	return packet6(from, to, unix.IPPROTO_UDP, append(b, text...), 6)
}

func tcp6(from, to netip.Addr, flags byte, text string) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, testPort)
	binary.BigEndian.PutUint16(b[2:], testPort)
	b[12], b[tcpFlagsAt] = 5<<4, flags
	return packet6(from, to, unix.IPPROTO_TCP, append(b, text...), 16)
}

func icmp6(from, to netip.Addr, kind byte, text string) []byte {
	return packet6(from, to, unix.IPPROTO_ICMPV6, append([]byte{kind, 0, 0, 0, 0, 1, 0, 1}, text...), 2)
}

// tooBig is the word of somebody on the way that a packet was too large for it.
func tooBig(from, to netip.Addr, packet []byte) []byte {
	const mtu = 1280
	return packet6(from, to, unix.IPPROTO_ICMPV6, append([]byte{2, 0, 0, 0, 0, 0, mtu >> 8, mtu & 0xff}, packet...), 2)
}

func packet6(from, to netip.Addr, protocol byte, payload []byte, sumAt int) []byte {
	p := make([]byte, 40, 40+len(payload))
	p[0], p[6], p[7] = 0x60, protocol, 64
	binary.BigEndian.PutUint16(p[4:], uint16(len(payload)))
	copy(p[sourceAt:], from.AsSlice())
	copy(p[destinationAt:], to.AsSlice())
	sum := uint32(protocol) + uint32(len(payload))
	for _, part := range [][]byte{p[sourceAt:40], payload} {
		for i := 0; i < len(part); i += 2 {
			word := uint32(part[i]) << 8
			if i+1 < len(part) {
				word |= uint32(part[i+1])
			}
			sum += word
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(payload[sumAt:], ^uint16(sum))
	return append(p, payload...)
}

// isolated is a host with three machines, two of them of one network, and a way to other hosts.
type isolated struct {
	t           *testing.T
	a, b, other *wire
	mesh        *wire
	taps        *Taps
}

const (
	idA, idB, idOther = drover.MachineID("aaaaaaaaaaaaaa"), drover.MachineID("bbbbbbbbbbbbbb"), drover.MachineID("cccccccccccccc")
	// wait is how long one waits for a packet, mostTries how often one that must come is sent.
	wait, mostTries = 150 * time.Millisecond, 60
)

var (
	addrA     = netip.MustParseAddr("fdaa:0:1:0:1::2")
	addrB     = netip.MustParseAddr("fdaa:0:1:0:2::2")
	addrOther = netip.MustParseAddr("fdaa:0:2:0:1::2")
	addrAway  = netip.MustParseAddr("fdaa:0:1:0:9::2") // of A's network, on another host
	addrHost  = netip.MustParseAddr("fdaa:0:0:0:5::1")
	addrHost2 = netip.MustParseAddr("fdaa:0:0:0:6::1")
	underlay  = netip.MustParseAddr("fd98::1")
)

func newIsolated(t *testing.T) *isolated {
	t.Helper()
	w := &isolated{t: t, taps: mustTaps(t)}
	link(t)
	if err := errors.Join(StartForwarding(), EnsureTUN(MeshDevice, 1380, addrHost), AddLocal(drover.ResolverAddress())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if l, err := netlink.LinkByName(MeshDevice); err == nil {
			if err := netlink.LinkDel(l); err != nil {
				t.Error(err)
			}
		}
	})
	w.mesh = openWire(t, MeshDevice, unix.IFF_TUN, nil)
	w.a, w.b, w.other = w.guest(idA, addrA), w.guest(idB, addrB), w.guest(idOther, addrOther)
	return w
}

// guest attaches a machine and knows its hardware address, so that nobody has to ask.
func (w *isolated) guest(id drover.MachineID, address netip.Addr) *wire {
	w.t.Helper()
	tap, err := w.taps.Attach(w.t.Context(), id, address.String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := w.taps.Detach(w.t.Context(), id); err != nil && w.t.Context().Err() == nil {
			w.t.Error(err)
		}
	})
	l, err := netlink.LinkByName(tap)
	if err != nil {
		w.t.Fatal(err)
	}
	mac, err := net.ParseMAC(id.MAC())
	if err != nil {
		w.t.Fatal(err)
	}
	if err := netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: address.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT}); err != nil {
		w.t.Fatal(err)
	}
	return openWire(w.t, tap, unix.IFF_TAP, append(append(append([]byte{}, tapMAC(id)...), mac...), 0x86, 0xdd))
}

// listens opens a socket of the host and returns what tells whether a text came.
func (w *isolated) listens(address netip.Addr, port uint16) func(text string, within time.Duration) bool {
	w.t.Helper()
	c, err := net.ListenUDP("udp6", net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, port)))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return func(text string, within time.Duration) bool {
		if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
			w.t.Fatal(err)
		}
		b := make([]byte, 2048)
		for {
			n, _, err := c.ReadFromUDP(b)
			if err != nil {
				return false
			}
			if bytes.Contains(b[:n], []byte(text)) {
				return true
			}
		}
	}
}

func TestMachinesReachTheirOwnNetworkAndNothingElse(t *testing.T) {
	w := newIsolated(t)
	host, resolver := w.listens(addrHost, testPort), w.listens(drover.ResolverAddress(), 53)
	wide := w.listens(underlay, testPort)
	second := netip.MustParseAddr("fdaa:0:1:0:1::77") // of A's /112
	for _, c := range []struct {
		name   string
		from   *wire
		packet func(text string) []byte
		at     func(string, time.Duration) bool
		comes  bool
	}{
		{"its own network, here", w.a, func(s string) []byte { return udp6(addrA, addrB, testPort, s) }, w.b.gets, true},
		{"its own network, elsewhere", w.a, func(s string) []byte { return udp6(addrA, addrAway, testPort, s) }, w.mesh.gets, true},
		{"from another address of its own", w.a, func(s string) []byte { return udp6(second, addrB, testPort, s) }, w.b.gets, true},
		{"the other network's own", w.mesh, func(s string) []byte { return udp6(netip.MustParseAddr("fdaa:0:2:0:9::2"), addrOther, testPort, s) }, w.other.gets, true},
		{"the resolver", w.a, func(s string) []byte { return udp6(addrA, drover.ResolverAddress(), 53, s) }, resolver, true},
		{"from elsewhere to here", w.mesh, func(s string) []byte { return udp6(addrAway, addrA, testPort, s) }, w.a.gets, true},
		{"from a host to a machine", w.mesh, func(s string) []byte { return udp6(addrHost2, addrA, testPort, s) }, w.a.gets, true},
		{"from a host to this one", w.mesh, func(s string) []byte { return udp6(addrHost2, addrHost, testPort, s) }, host, true},
		{"passed on for a machine that left", w.mesh, func(s string) []byte { return udp6(addrB, addrAway, testPort, s) }, w.mesh.gets, true},
		{"an answer to another host", w.a, func(s string) []byte { return tcp6(addrA, addrHost2, tcpACK, s) }, w.mesh.gets, true},
		{"an error about what another host sent it", w.a, func(s string) []byte { return tooBig(addrA, addrHost2, udp6(addrHost2, addrA, testPort, s)) }, w.mesh.gets, true},
		{"an error about what another host sent elsewhere", w.a, func(s string) []byte { return tooBig(addrA, addrHost2, udp6(addrHost2, addrHost, testPort, s)) }, w.mesh.gets, false},
		{"a pong to another host", w.a, func(s string) []byte { return icmp6(addrA, addrHost2, 129, s) }, w.mesh.gets, true},

		{"another network, here", w.a, func(s string) []byte { return udp6(addrA, addrOther, testPort, s) }, w.other.gets, false},
		{"another network, elsewhere", w.a, func(s string) []byte { return udp6(addrA, netip.MustParseAddr("fdaa:0:2:0:9::2"), testPort, s) }, w.mesh.gets, false},
		{"as its neighbour", w.a, func(s string) []byte { return udp6(addrAway, addrB, testPort, s) }, w.b.gets, false},
		{"as one of the other network", w.a, func(s string) []byte { return udp6(addrOther, addrB, testPort, s) }, w.b.gets, false},
		{"as one of the other network, to it", w.a, func(s string) []byte { return udp6(netip.MustParseAddr("fdaa:0:2:0:9::2"), addrOther, testPort, s) }, w.other.gets, false},
		{"as a host", w.a, func(s string) []byte { return udp6(addrHost2, addrB, testPort, s) }, w.b.gets, false},
		{"by its link's address", w.a, func(s string) []byte { return udp6(netip.MustParseAddr("fe80::2"), addrHost, testPort, s) }, host, false},
		{"its host", w.a, func(s string) []byte { return udp6(addrA, addrHost, testPort, s) }, host, false},
		{"its host's own network", w.a, func(s string) []byte { return udp6(addrA, underlay, testPort, s) }, wide, false},
		{"another port of the resolver", w.a, func(s string) []byte { return udp6(addrA, drover.ResolverAddress(), testPort, s) }, w.listens(drover.ResolverAddress(), testPort), false},
		{"another host", w.a, func(s string) []byte { return udp6(addrA, addrHost2, testPort, s) }, w.mesh.gets, false},
		{"a new connection to another host", w.a, func(s string) []byte { return tcp6(addrA, addrHost2, tcpSYN, s) }, w.mesh.gets, false},
		{"a ping of another host", w.a, func(s string) []byte { return icmp6(addrA, addrHost2, 128, s) }, w.mesh.gets, false},
		{"from the other network elsewhere to here", w.mesh, func(s string) []byte { return udp6(netip.MustParseAddr("fdaa:0:2:0:9::2"), addrA, testPort, s) }, w.a.gets, false},
		{"from a machine elsewhere to this host", w.mesh, func(s string) []byte { return udp6(addrAway, addrHost, testPort, s) }, host, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, tries := "("+c.name+")", 1
			if c.comes {
				tries = mostTries // a tap that was just opened takes a moment until it takes packets
			}
			got := false
			for range tries {
				c.from.send(c.packet(text))
				if got = c.at(text, wait); got {
					break
				}
			}
			if got != c.comes {
				t.Errorf("it comes: %t", got)
			}
		})
	}
	t.Run("a guest that speaks IPv4", func(t *testing.T) {
		v4 := *w.a
		v4.ethernet = append(append([]byte{}, w.a.ethernet[:12]...), 0x08, 0x00)
		v4.send([]byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2})
		if got := dropsOf(t, "guard"); got == 0 {
			t.Error("nothing was dropped")
		}
	})
	// What is connected from the host may answer, and only that.
	t.Run("answers to its host", func(t *testing.T) {
		c, err := net.DialUDP("udp6", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addrHost, 4300)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(addrA, testPort)))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("question")); err != nil {
			t.Fatal(err)
		}
		if !w.a.gets("question", mostTries*wait) {
			t.Fatal("the host does not reach its machine")
		}
		w.a.send(udp6(addrA, addrHost, 4300, "answer"))
		if err := c.SetReadDeadline(time.Now().Add(mostTries * wait)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 100)); err != nil {
			t.Errorf("the answer did not come: %v", err)
		}
	})
}

// A kernel believes whoever says that a packet on its way was too large: a guest could let hosts cut what they send each other in pieces.
func TestAMachineTellsItsHostOfNothingButItself(t *testing.T) {
	w := newIsolated(t)
	mtuTo := func(to netip.Addr, port int) func() int {
		c, err := net.DialUDP("udp6", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addrHost, uint16(port))), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, testPort)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("one packet, so that the kernel knows of the connection")); err != nil {
			t.Fatal(err)
		}
		return func() (mtu int) {
			if err := raw.Control(func(fd uintptr) { mtu, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU) }); err != nil {
				t.Fatal(err)
			}
			return mtu
		}
	}
	elsewhere, here := mtuTo(addrHost2, 4300), mtuTo(addrA, 4301)
	about := func(from, to netip.Addr, port uint16) []byte {
		p := udp6(from, to, testPort, "")
		binary.BigEndian.PutUint16(p[40:], port)
		return append(p, make([]byte, 1000)...)
	}
	before := elsewhere()
	told := false
	for i := 0; i < mostTries && !told; i++ {
		for _, to := range []netip.Addr{addrHost, drover.ResolverAddress(), netip.MustParseAddr("fe80::1")} {
			w.a.send(tooBig(addrA, to, about(addrHost, addrHost2, 4300)))
		}
		w.a.send(tooBig(addrA, addrHost, about(addrHost, addrA, 4301))) // after the others: they have come when it has
		w.b.gets("nothing", wait/10)
		told = here() == 1280
	}
	if !told {
		t.Errorf("what a machine says of its own packets is not heard: the MTU is %d", here())
	}
	if got := elsewhere(); got != before {
		t.Errorf("a machine has made the MTU of the way to another host %d, which was %d", got, before)
	}
}

func TestAHostTellsItsMachinesNothingByARP(t *testing.T) {
	w := newIsolated(t)
	arp := *w.a
	arp.ethernet = append(append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, w.a.ethernet[6:12]...), 0x08, 0x06)
	question := append([]byte{0, 1, 8, 0, 6, 4, 0, 1}, w.a.ethernet[6:12]...)
	question = append(question, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 127, 0, 0, 1)
	copy(question[24:], hostV4(t))
	reply := string([]byte{0, 1, 8, 0, 6, 4, 0, 2})
	// The question comes before the packet after it, whose arrival is seen.
	for range mostTries {
		arp.send(question)
		w.a.send(udp6(addrA, addrB, testPort, "after"))
		if w.b.gets("after", wait) {
			break
		}
	}
	if w.a.gets(reply, wait) {
		t.Error("a guest is told the hardware address that goes with an IPv4 address of its host")
	}
}

// hostV4 gives the host an IPv4 address.
func hostV4(t *testing.T) net.IP {
	t.Helper()
	l, err := netlink.LinkByName(MeshDevice)
	if err != nil {
		t.Fatal(err)
	}
	a := &net.IPNet{IP: net.IPv4(10, 77, 0, 1).To4(), Mask: net.CIDRMask(32, 32)}
	if err := netlink.AddrReplace(l, &netlink.Addr{IPNet: a}); err != nil {
		t.Fatal(err)
	}
	return a.IP
}

// An agent that starts anew shuts out nobody whom the last one let in, and lets in nobody whose tap is gone.
func TestANewAgentKeepsTheRulesOfWhatRuns(t *testing.T) {
	w := newIsolated(t)
	w.taps = &Taps{}
	if _, err := w.taps.Attach(t.Context(), idB, addrB.String()); err != nil {
		t.Fatal(err)
	}
	there := false
	for i := 0; i < mostTries && !there; i++ {
		w.a.send(udp6(addrA, addrB, testPort, "still there"))
		there = w.b.gets("still there", wait)
	}
	if !there {
		t.Error("a machine that the new agent has not looked at yet is cut off")
	}
	if err := w.taps.Detach(t.Context(), idOther); err != nil {
		t.Fatal(err)
	}
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{sourceSet, networkSet} {
		elements, err := c.GetSetElements(newFirewall().set(name))
		if err != nil || len(elements) != 2 {
			t.Errorf("the set %q has %d members, %v; want those of A and B", name, len(elements), err)
		}
	}
}

// dropsOf adds up the packets that a chain dropped or refused.
func dropsOf(t *testing.T, chain string) uint64 {
	t.Helper()
	counts, err := Refusals()
	if err != nil {
		t.Fatal(err)
	}
	return counts[chain]
}
