package mesh

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"drover"
)

// ProbePort is where hosts answer each other's probes, on their private addresses.
const ProbePort = 4281

const (
	probeEvery = time.Second
	// bigEvery is how many probes there are for each large one.
	bigEvery = 3
)

// A probe is 24 bytes, and zeroes after them in a large one: the mark, what it is, the number, and the asker's clock.
const (
	probeLen  = 24
	probeMark = 0x64727076 // "drpv"
	// The kinds: the answer has the asker's number and clock.
	kindAsk    = 1
	kindAnswer = 2
	kindBig    = 4 // a bit
	kindUses   = 8 // a bit: the asker's packets go the way of the probe
	// udpHeaders is what IPv6 and UDP put before a probe.
	udpHeaders = headerLen + 8
)

// Link is how packets pass between this host and a peer, as far as this host knows.
type Link struct {
	Host  drover.HostID `json:"host"`
	State LinkState     `json:"state"`
	Text  string        `json:"text"`
	// RTT is that of the last probe that was answered.
	RTT drover.Duration `json:"rtt,omitempty"`
	// HeardAt is when anything came from the peer, AnsweredAt when it answered a probe.
	HeardAt    time.Time `json:"heard_at,omitzero"`
	AnsweredAt time.Time `json:"answered_at,omitzero"`
}

// Prober asks every peer of a device again and again, over the path of machines' packets, and answers the others.
type Prober struct {
	self   drover.HostID
	device *Device
	log    *slog.Logger

	mu   sync.Mutex
	seen map[netip.Addr]*sighting
}

// NewProber makes a prober that does nothing yet.
func NewProber(self drover.HostID, device *Device, log *slog.Logger) *Prober {
	return &Prober{self: self, device: device, log: log, seen: map[netip.Addr]*sighting{}}
}

// Run asks and answers until ctx ends.
func (p *Prober) Run(ctx context.Context) error {
	self := p.device.cfg.Address
	addresses := []netip.Addr{self, pairAddress(self.As16(), 0), pairAddress(self.As16(), 1)}
	conns := map[netip.Addr]*net.UDPConn{}
	var group sync.WaitGroup
	defer group.Wait()
	for _, a := range addresses {
		own := netip.AddrPortFrom(a, ProbePort)
		conn, err := net.ListenUDP("udp6", net.UDPAddrFromAddrPort(own))
		if err != nil {
			return drover.Errorf(drover.Conflict, "cannot answer probes at %s: %w", own, err)
		}
		defer conn.Close()
		conns[a] = conn
		group.Go(func() { p.listen(ctx, conn, a) })
	}
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for n := uint64(0); ; n++ {
		p.ask(conns[self], n)
		p.askPairs(conns, n)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// askPairs sends a probe over each pair of keys, where there are several.
func (p *Prober) askPairs(conns map[netip.Addr]*net.UDPConn, n uint64) {
	now := time.Now()
	packet := make([]byte, probeLen)
	for _, q := range p.device.questions(now) {
		kind := uint32(kindAsk)
		if q.uses {
			kind |= kindUses
		}
		putProbe(packet, kind, n, now.UnixNano())
		if _, err := conns[q.from.Addr()].WriteToUDPAddrPort(packet, q.to); err != nil {
			p.log.Debug("a probe cannot be sent", "to", q.to.String(), "err", err)
		}
	}
}

// ask sends a probe to each peer.
func (p *Prober) ask(conn *net.UDPConn, n uint64) {
	now := time.Now()
	packet := make([]byte, probeLen, max(probeLen, p.device.cfg.MTU))
	kind := uint32(kindAsk)
	if n%bigEvery == 0 {
		kind, packet = kind|kindBig, packet[:p.device.cfg.MTU-udpHeaders]
	}
	putProbe(packet, kind, n, now.UnixNano())
	peers := p.device.Peers()
	p.mu.Lock()
	for _, peer := range peers {
		if p.seen[peer.Address] == nil {
			p.seen[peer.Address] = &sighting{since: now}
		}
	}
	p.mu.Unlock()
	for _, peer := range peers {
		if _, err := conn.WriteToUDPAddrPort(packet, netip.AddrPortFrom(peer.Address, ProbePort)); err != nil {
			p.log.Debug("a probe cannot be sent", "peer", string(peer.Host), "err", err)
		}
	}
}

// listen takes in probes and answers at one of this host's addresses.
func (p *Prober) listen(ctx context.Context, conn *net.UDPConn, own netip.Addr) {
	b := make([]byte, 65536)
	for ctx.Err() == nil {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < probeLen || binary.BigEndian.Uint32(b) != probeMark {
			continue
		}
		kind := binary.BigEndian.Uint32(b[4:])
		answer := false
		if peer := from.Addr().Unmap(); own == p.device.cfg.Address {
			answer = p.saw(peer, kind, int64(binary.BigEndian.Uint64(b[16:])))
		} else {
			answer = p.device.sawPair(peer, slot(own.As16()[15]&1), kind, time.Now()) && kind&kindAsk != 0
		}
		if answer {
			binary.BigEndian.PutUint32(b[4:], kind&^(kindAsk|kindUses)|kindAnswer)
			if _, err := conn.WriteToUDPAddrPort(b[:probeLen], from); err != nil {
				p.log.Debug("a probe cannot be answered", "peer", from.String(), "err", err)
			}
		}
	}
}

// saw notes what came, and reports whether it is to be answered. Only peers are.
func (p *Prober) saw(from netip.Addr, kind uint32, sent int64) bool {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.seen[from]
	switch {
	case s == nil:
		return false
	case kind&kindAsk != 0:
		s.asked = now
		return true
	case kind&kindAnswer != 0:
		s.answered, s.rtt = now, now.Sub(time.Unix(0, sent))
		if kind&kindBig != 0 {
			s.answeredBig = now
		}
	}
	return false
}

func putProbe(b []byte, kind uint32, n uint64, clock int64) {
	binary.BigEndian.PutUint32(b, probeMark)
	binary.BigEndian.PutUint32(b[4:], kind)
	binary.BigEndian.PutUint64(b[8:], n)
	binary.BigEndian.PutUint64(b[16:], uint64(clock))
}

// RTT tells how long the last answer of a peer took; 0 when there was none lately.
func (p *Prober) RTT(host drover.HostID) time.Duration {
	for _, peer := range p.device.Peers() {
		if peer.Host == host {
			p.mu.Lock()
			defer p.mu.Unlock()
			if s := p.seen[peer.Address]; s != nil && time.Since(s.answered) < linkBad {
				return s.rtt
			}
		}
	}
	return 0
}

// Links tells how the links to all peers are, in an order that does not change.
func (p *Prober) Links() []Link {
	peers, now := p.device.Peers(), time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	known := map[netip.Addr]bool{}
	links := make([]Link, 0, len(peers))
	for _, peer := range peers {
		known[peer.Address] = true
		s := sighting{since: now}
		if seen := p.seen[peer.Address]; seen != nil {
			s = *seen
		}
		s.raw = p.device.Heard(peer)
		state := s.judge(now)
		links = append(links, Link{Host: peer.Host, State: state, Text: state.Text(p.self, peer.Host), RTT: drover.Duration(s.rtt), HeardAt: s.raw, AnsweredAt: s.answered})
	}
	for a := range p.seen {
		if !known[a] {
			delete(p.seen, a)
		}
	}
	slices.SortFunc(links, func(a, b Link) int { return strings.Compare(string(a.Host), string(b.Host)) })
	return links
}
