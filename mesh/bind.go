package mesh

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// sockets are the UDP port of this host, which all its ends share. They note from which addresses anything comes at all: where WireGuard's handshake fails
// because the answers are lost, that still tells which direction works.
type sockets struct {
	conn.Bind
	port    uint16
	receive []conn.ReceiveFunc
	lanes   []*lane
	heard   atomic.Pointer[map[netip.Addr]*atomic.Int64]

	mu sync.RWMutex
	// ends are those that packets may be for.
	ends []*end
	// sessions are whose a session is, by the number that the end has given it: young ones, and those from before.
	sessions, before map[uint32]*end
	turnedAt         time.Time
}

// sessionLife is longer than WireGuard uses a session, or a handshake.
const sessionLife = 5 * time.Minute

// What WireGuard's messages have in front (its protocol, section 5.4): the kind, and the number of the sender's session, or of the receiver's.
const (
	messageInitiation = 1
	messageResponse   = 2
	responseReceiver  = 8
	otherReceiver     = 4
	leastMessage      = 32
)

func openSockets(port uint16) (*sockets, error) {
	s := &sockets{Bind: conn.NewDefaultBind(), sessions: map[uint32]*end{}, turnedAt: time.Now()}
	s.heard.Store(&map[netip.Addr]*atomic.Int64{})
	var err error
	s.receive, s.port, err = s.Bind.Open(port)
	for range s.receive {
		s.lanes = append(s.lanes, newLane())
	}
	return s, err
}

// watch makes the addresses those that are noted; what is known of them stays.
func (s *sockets) watch(addresses []netip.Addr) {
	old, next := *s.heard.Load(), map[netip.Addr]*atomic.Int64{}
	for _, a := range addresses {
		if next[a] = old[a]; next[a] == nil {
			next[a] = &atomic.Int64{}
		}
	}
	s.heard.Store(&next)
}

// last tells when something came from the address.
func (s *sockets) last(a netip.Addr) time.Time {
	at := (*s.heard.Load())[a]
	if at == nil || at.Load() == 0 {
		return time.Time{}
	}
	return time.Unix(0, at.Load())
}

// began notes whose a session is, when its end tells the other side of it.
func (s *sockets) began(e *end, session uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.turnedAt) > sessionLife {
		s.before, s.sessions, s.turnedAt = s.sessions, map[uint32]*end{}, time.Now()
	}
	s.sessions[session] = e
}

// ownersLocked appends the ends that a message is for: that of its session, or all, when it begins one; WireGuard finds out by itself whose key it is for.
func (s *sockets) ownersLocked(owners []*end, b []byte) []*end {
	at := otherReceiver
	switch binary.LittleEndian.Uint32(b) {
	case messageInitiation:
		return append(owners, s.ends...)
	case messageResponse:
		at = responseReceiver
	}
	session := binary.LittleEndian.Uint32(b[at:])
	if e := s.sessions[session]; e != nil {
		return append(owners, e)
	}
	if e := s.before[session]; e != nil {
		return append(owners, e)
	}
	return owners
}

// endBind is one end's view of the sockets.
type endBind struct {
	*sockets
	end    *end
	opened atomic.Bool
}

var _ conn.Bind = (*endBind)(nil)

// Open returns how the end receives. The sockets are open.
func (b *endBind) Open(uint16) (fns []conn.ReceiveFunc, port uint16, err error) {
	for i := range b.receive {
		fns = append(fns, func(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
			return b.receiveOn(i, packets, sizes, eps)
		})
	}
	b.opened.Store(true)
	return fns, b.port, nil
}

// Close lets the end receive nothing any more; the sockets stay. WireGuard calls it before it opens, too.
func (b *endBind) Close() error {
	if b.opened.Load() {
		b.end.shut()
	}
	return nil
}

// Send sends messages, and notes those that begin a session.
func (b *endBind) Send(packets [][]byte, ep conn.Endpoint) error {
	for _, p := range packets {
		if len(p) < leastMessage {
			continue
		}
		if kind := binary.LittleEndian.Uint32(p); kind == messageInitiation || kind == messageResponse {
			b.began(b.end, binary.LittleEndian.Uint32(p[4:]))
		}
	}
	return b.Bind.Send(packets, ep)
}

func (b *endBind) receiveOn(lane int, packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	own := b.end.sockets[lane]
	first, mine, err := own.wait()
	if err != nil {
		return 0, net.ErrClosed
	}
	if !mine {
		return own.take(first, packets, sizes, 0, func(i int, from conn.Endpoint) { eps[i] = from }), nil
	}
	n, err := b.receive[lane](packets, sizes, eps)
	now, heard := time.Now().UnixNano(), *b.heard.Load()
	for i := range n {
		if sizes[i] > 0 {
			if at := heard[eps[i].DstIP().Unmap()]; at != nil {
				at.Store(now)
			}
		}
	}
	b.mu.RLock()
	alone := len(b.ends) < 2
	b.mu.RUnlock()
	if !alone {
		b.sort(lane, packets[:n], sizes, eps)
	}
	return n, err
}

// sort hands on what is not this end's.
func (b *endBind) sort(lane int, packets [][]byte, sizes []int, eps []conn.Endpoint) {
	var few [4]*end
	for i, p := range packets {
		if sizes[i] < leastMessage {
			continue
		}
		b.mu.RLock()
		owners := b.ownersLocked(few[:0], p)
		b.mu.RUnlock()
		own := false
		for _, e := range owners {
			if e == b.end {
				own = true
				continue
			}
			e.sockets[lane].copied(p[:sizes[i]], eps[i])
		}
		if !own {
			sizes[i] = 0
		}
	}
}
