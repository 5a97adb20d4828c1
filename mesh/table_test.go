package mesh

import (
	"net/netip"
	"os"
	"testing"

	"golang.zx2c4.com/wireguard/tun"

	"drover"
)

// scripted is a TUN device that hands out packets, and keeps what it is given.
type scripted struct {
	tun.Device
	packets [][]byte
	err     error
	got     [][]byte
}

func (s *scripted) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for i, p := range s.packets {
		sizes[i] = copy(bufs[i][offset:], p)
	}
	return len(s.packets), s.err
}

func (s *scripted) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		s.got = append(s.got, append([]byte(nil), b[offset:]...))
	}
	return len(bufs), nil
}

// testTunnel is a tunnel whose end has the turn.
func testTunnel(dev tun.Device, table *Table, self [16]byte) *tunnel {
	e := &end{address: self, host: self}
	e.reach.Store(true)
	l := newLane()
	l.want.Store(e)
	e.tun = newReader(l, e)
	return &tunnel{Device: dev, table: table, end: e}
}

func packet(from, to netip.Addr, text string) []byte {
	p := make([]byte, headerLen, headerLen+len(text))
	p[0], p[nextHeaderAt], p[hopLimitAt], p[lengthAt+1] = 0x60, 17, 64, byte(len(text))
	copy(p[sourceAt:], from.AsSlice())
	copy(p[destinationAt:], to.AsSlice())
	return append(p, text...)
}

func buffers(n int) [][]byte {
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = make([]byte, 2048)
	}
	return bufs
}

func hostAddress(t testing.TB, number uint64) netip.Addr {
	t.Helper()
	a, err := drover.HostAddress(number)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAPacketArrivesAsItWasSent(t *testing.T) {
	h1, h2 := hostAddress(t, 1), hostAddress(t, 2)
	table := NewTable()
	table.Set(machineB, h2)
	stranger := netip.MustParseAddr("2001:db8::1")
	source := &scripted{packets: [][]byte{packet(machineA, machineB, "hello"), packet(machineA, machineA, "to nobody"), packet(machineA, stranger, "out"), {0x60}}}
	out := testTunnel(source, table, h1.As16())
	const offset = 16
	bufs, sizes := buffers(8), make([]int, 8)
	n, err := out.Read(bufs, sizes, offset)
	if err != nil || n != 4 || sizes[0] != 2*headerLen+5 || sizes[1] != 0 || sizes[2] != 0 || sizes[3] != 0 {
		t.Fatalf("read %d, %v, %v", n, sizes, err)
	}
	if unknown, malformed := table.Dropped(); unknown != 1 || malformed != 2 {
		t.Errorf("dropped %d unknown, %d malformed", unknown, malformed)
	}
	sink := &scripted{}
	in := testTunnel(sink, NewTable(), h2.As16())
	wire := bufs[0][:offset+sizes[0]]
	short, wrongHost, foreign := append([]byte(nil), wire[:offset+headerLen]...), append([]byte(nil), wire...), append([]byte(nil), wire...)
	wrongHost[offset+destinationAt+15] = 9
	foreign[offset+headerLen+sourceAt] = 0x20
	if _, err := in.Write([][]byte{short, wrongHost, wire, foreign}, offset); err != nil {
		t.Fatal(err)
	}
	if len(sink.got) != 1 || string(sink.got[0]) != string(source.packets[0]) {
		t.Errorf("arrived: %q", sink.got)
	}
}

// What a guest makes up must not end the mesh; the end of the device must.
func TestAPacketThatMakesNoSenseCostsItself(t *testing.T) {
	source := &scripted{err: tun.ErrTooManySegments}
	out := testTunnel(source, NewTable(), hostAddress(t, 1).As16())
	if _, err := out.Read(buffers(1), make([]int, 1), 16); err != nil {
		t.Errorf("a packet that cannot be cut ended the mesh: %v", err)
	}
	source.err = os.ErrClosed
	if _, err := out.Read(buffers(1), make([]int, 1), 16); err == nil {
		t.Error("the device is closed, and nobody was told")
	}
}

func full(b *testing.B, n uint64) (*Table, []netip.Addr) {
	table := NewTable()
	machines := make([]netip.Addr, n)
	for i := range machines {
		a, err := drover.MachineAddress(1+uint64(i)%50, uint64(i))
		if err != nil {
			b.Fatal(err)
		}
		machines[i] = a
		table.Set(a, hostAddress(b, 2+uint64(i)%20))
	}
	return table, machines
}

// BenchmarkSet moves machines of 10,000 from host to host, one route after the other.
func BenchmarkSet(b *testing.B) {
	table, machines := full(b, 10000)
	hosts := []netip.Addr{hostAddress(b, 2), hostAddress(b, 3)}
	for i := 0; b.Loop(); i++ {
		table.Set(machines[i%len(machines)], hosts[i%2])
	}
}

// BenchmarkWrap puts the header before packets of a batch, with 10,000 routes.
func BenchmarkWrap(b *testing.B) {
	table, machines := full(b, 10000)
	source := &scripted{}
	for i := range 128 {
		source.packets = append(source.packets, packet(machineA, machines[i*70], "0123456789"))
	}
	out := testTunnel(source, table, hostAddress(b, 1).As16())
	bufs, sizes := buffers(128), make([]int, 128)
	for b.Loop() {
		if _, err := out.Read(bufs, sizes, 16); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/128, "ns/packet")
}
