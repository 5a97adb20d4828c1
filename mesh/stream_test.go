package mesh

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"drover/internal/netdev"
)

// streamTime is how long a stream is measured, streamPort where it goes.
const (
	streamTime = 3 * time.Second
	streamPort = 5001
)

// sink takes in whatever comes.
func sink() error {
	l, err := net.Listen("tcp6", fmt.Sprintf("[::]:%d", streamPort))
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				fmt.Fprintln(os.Stderr, "sink:", err)
				return
			}
			go func() { _, _ = io.Copy(io.Discard, c); c.Close() }()
		}
	}()
	return nil
}

// pump sends as much as it can for streamTime, and tells how much that was.
func pump(to netip.AddrPort) (uint64, error) {
	c, err := net.DialTCP("tcp6", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	b, sent := make([]byte, 256<<10), uint64(0)
	for end := time.Now().Add(streamTime); time.Now().Before(end); {
		n, err := c.Write(b)
		if sent += uint64(n); err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// openAlone is WireGuard without a mesh: what it costs to have one is measured against it.
func (p *siteProcess) openAlone(key PrivateKey, address netip.Addr) error {
	if err := netdev.EnsureTUN("drover0", DefaultMTU, address); err != nil {
		return err
	}
	dev, err := tun.CreateTUN("drover0", DefaultMTU)
	if err != nil {
		return err
	}
	p.alone = device.NewDevice(dev, conn.NewDefaultBind(), &device.Logger{Verbosef: device.DiscardLogf, Errorf: device.DiscardLogf})
	if err := p.alone.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\n", key.hex(), sitePort)); err != nil {
		return err
	}
	return p.alone.Up()
}

// BenchmarkStream is one TCP stream between two hosts.
func BenchmarkStream(b *testing.B) {
	for _, kind := range []string{"alone", "mesh"} {
		b.Run(kind, func(b *testing.B) {
			w := newWorld(b)
			h1, h2 := w.siteOf(1, kind), w.siteOf(2, kind)
			join(h1, h2)
			h2.do(order{Op: "sink"})
			sent := uint64(0)
			for b.Loop() {
				sent += h1.do(order{Op: "pump", To: netip.AddrPortFrom(h2.peer.Address, streamPort)}).Count
			}
			b.ReportMetric(float64(sent)*8/1e6/b.Elapsed().Seconds(), "Mbit/s")
		})
	}
}
