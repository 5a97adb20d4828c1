package dns

import (
	"net"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"

	"drover"
)

// What one machine may ask: questions per second, and TCP connections at once; and how many connections there may be in all. A host has far fewer
// machines than maxMachines.
const (
	perMachineRate   = 2000
	perMachineBurst  = 4000
	perMachineStream = 16
	maxStreams       = 1024
	maxMachines      = 16384
)

// limits bounds what machines ask.
type limits struct {
	mu      sync.Mutex
	rates   map[netip.Prefix]*rate.Limiter
	streams map[netip.Prefix]int
	all     int
}

func newLimits() *limits {
	return &limits{rates: map[netip.Prefix]*rate.Limiter{}, streams: map[netip.Prefix]int{}}
}

// admit reports whether the machine with an address may ask one more question now.
func (l *limits) admit(asker netip.Addr) bool {
	machine := drover.MachinePrefix(asker)
	l.mu.Lock()
	r := l.rates[machine]
	if r == nil {
		if len(l.rates) >= maxMachines {
			clear(l.rates) // all begin anew: that is more than they may, once
		}
		r = rate.NewLimiter(perMachineRate, perMachineBurst)
		l.rates[machine] = r
	}
	l.mu.Unlock()
	return r.Allow()
}

// listener bounds the connections that are open.
func (l *limits) listener(inner net.Listener) net.Listener { return &boundedListener{inner, l} }

type boundedListener struct {
	net.Listener
	limits *limits
}

// Accept returns the next connection that is within the bounds; others are closed at once.
func (b *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		machine := drover.MachinePrefix(addressOf(c.RemoteAddr()))
		if b.limits.open(machine) {
			return &boundedConn{Conn: c, close: func() { b.limits.closed(machine) }}, nil
		}
		c.Close()
	}
}

func (l *limits) open(machine netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= maxStreams || l.streams[machine] >= perMachineStream {
		return false
	}
	l.all++
	l.streams[machine]++
	return true
}

func (l *limits) closed(machine netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.streams[machine]--; l.streams[machine] == 0 {
		delete(l.streams, machine)
	}
}

type boundedConn struct {
	net.Conn
	once  sync.Once
	close func()
}

// Close closes the connection and makes room for another.
func (c *boundedConn) Close() error {
	defer c.once.Do(c.close)
	return c.Conn.Close()
}
