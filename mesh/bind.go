package mesh

import (
	"net/netip"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// listener notes from which addresses anything comes at all: where WireGuard's handshake fails because the answers are lost, that still tells which
// direction works.
type listener struct {
	conn.Bind
	heard atomic.Pointer[map[netip.Addr]*atomic.Int64]
}

var _ conn.Bind = (*listener)(nil)

func newListener() *listener {
	l := &listener{Bind: conn.NewDefaultBind()}
	l.heard.Store(&map[netip.Addr]*atomic.Int64{})
	return l
}

// watch makes the addresses those that are noted; what is known of them stays.
func (l *listener) watch(addresses []netip.Addr) {
	old, next := *l.heard.Load(), map[netip.Addr]*atomic.Int64{}
	for _, a := range addresses {
		if next[a] = old[a]; next[a] == nil {
			next[a] = &atomic.Int64{}
		}
	}
	l.heard.Store(&next)
}

// last tells when something came from the address.
func (l *listener) last(a netip.Addr) time.Time {
	at := (*l.heard.Load())[a]
	if at == nil || at.Load() == 0 {
		return time.Time{}
	}
	return time.Unix(0, at.Load())
}

// Open opens the sockets.
func (l *listener) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	fns, actual, err := l.Bind.Open(port)
	for i, receive := range fns {
		fns[i] = func(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
			n, err := receive(packets, sizes, eps)
			now, heard := time.Now().UnixNano(), *l.heard.Load()
			for j := range n {
				if sizes[j] > 0 {
					if at := heard[eps[j].DstIP().Unmap()]; at != nil {
						at.Store(now)
					}
				}
			}
			return n, err
		}
	}
	return fns, actual, err
}
