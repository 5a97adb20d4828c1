package dev

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"drover"
	"drover/internal/netdev"
)

// Link is what is done to a host's link. The zero Link is a whole one.
type Link struct {
	// CutOut drops what the host sends, CutIn what it would receive.
	CutOut bool `json:"cut_out,omitempty"`
	CutIn  bool `json:"cut_in,omitempty"`
	// Without are hosts with which nothing is exchanged, in either direction; with all others the link works.
	Without []drover.HostID `json:"without,omitempty"`
	// Rate bounds each direction, in bytes per second; 0 is no bound.
	Rate drover.Bytes `json:"rate,omitempty"`
	// Delay is added in each direction.
	Delay time.Duration `json:"delay,omitempty"`
}

// The bounds of what a link can be slowed to: a frame must pass in bearable time, and what is on its way must fit into memory.
const (
	minRate  = 10 * drover.KiB
	maxDelay = 10 * time.Second
)

// whole reports whether nothing is done to the link.
func (l Link) whole() bool {
	return !l.CutOut && !l.CutIn && len(l.Without) == 0 && l.Rate == 0 && l.Delay == 0
}

// check returns Invalid for a link that cannot be.
func (l Link) check() error {
	if l.Rate != 0 && l.Rate < minRate {
		return drover.Errorf(drover.Invalid, "the rate of %d bytes per second is too low: at least %d", l.Rate, minRate).WithField("rate")
	}
	if l.Delay < 0 || l.Delay > maxDelay {
		return drover.Errorf(drover.Invalid, "the delay of %s is not between 0 and %s", l.Delay, maxDelay).WithField("delay")
	}
	return nil
}

// String tells people how the link is.
func (l Link) String() string {
	switch {
	case l.CutIn && l.CutOut:
		return "cut"
	case l.whole():
		return "ok"
	}
	text := ""
	add := func(yes bool, format string, args ...any) {
		if yes && text != "" {
			text += ", "
		}
		if yes {
			text += fmt.Sprintf(format, args...)
		}
	}
	add(l.CutIn, "receives nothing")
	add(l.CutOut, "sends nothing")
	add(len(l.Without) > 0, "nothing to or from %s", joinIDs(l.Without))
	add(l.Rate != 0, "%.1f MiB/s", float64(l.Rate)/float64(drover.MiB))
	add(l.Delay != 0, "%s each way", l.Delay)
	return text
}

func joinIDs(ids []drover.HostID) string {
	var words []string
	for _, id := range ids {
		words = append(words, string(id))
	}
	return strings.Join(words, " and ")
}

// bridgeName is the rack's bridge, in a namespace of its own.
const bridgeName = "br0"

// wire is a link with the hardware addresses of the hosts that it is cut from.
type wire struct {
	Link
	without []net.HardwareAddr
}

// uplink is the fleet's network: a bridge, a port per host, and the forward proxy.
type uplink struct {
	ns     *netdev.Namespace
	egress *egress
	log    *slog.Logger

	mu     sync.Mutex
	relays map[int]*relay // by host number; those whose link is neither whole nor cut
	up     map[int]bool   // hosts that have a port now
	links  map[int]wire   // what was asked for; outlives the host's power
}

func newUplink(ctx context.Context, n network, log *slog.Logger) (*uplink, error) {
	ns, err := netdev.NewNamespace()
	if err != nil {
		return nil, err
	}
	u := &uplink{ns: ns, log: log, relays: map[int]*relay{}, up: map[int]bool{}, links: map[int]wire{}}
	if err := ns.AddBridge(bridgeName, n.prefixes(gatewayNumber)...); err != nil {
		ns.Close()
		return nil, err
	}
	var l net.Listener
	at := net.JoinHostPort(n.address(gatewayNumber).String(), fmt.Sprint(egressPort))
	err = ns.Do(func() (err error) {
		l, err = net.Listen("tcp", at)
		return err
	})
	if err != nil {
		ns.Close()
		return nil, drover.Errorf(drover.Internal, "cannot listen on %s for the fleet's forward proxy: %w", at, err)
	}
	u.egress = startEgress(ctx, l, log)
	return u, nil
}

func (u *uplink) close() {
	u.egress.close()
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range u.relays {
		r.close()
	}
	u.ns.Close()
}

// hardwareAddress is that of a host's link: the same after each power cut, so that its neighbours find it at once, as with a real
// network card.
func hardwareAddress(number int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0xd0, 0xe5, 0, 0, byte(number)}
}

func portName(number int) string { return fmt.Sprintf("port%d", number) }

// connect gives the host, whose first process is pid, its link.
func (u *uplink) connect(number, pid int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.ns.Remove(portName(number)); err != nil { // of a host that lost its power a moment ago
		return err
	}
	if err := u.ns.AddPort(portName(number), "eth0", hardwareAddress(number), pid); err != nil {
		return err
	}
	u.up[number] = true
	return u.applyLocked(number)
}

// disconnect removes the link of a host that has no power.
func (u *uplink) disconnect(number int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.up[number] = false
	u.stopRelayLocked(number)
	return u.ns.Remove(portName(number))
}

// set changes a host's link; of a host without power, from the next start on. without are the numbers of the hosts in l.Without.
func (u *uplink) set(number int, l Link, without []int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	w := wire{Link: l}
	for _, n := range without {
		w.without = append(w.without, hardwareAddress(n))
	}
	u.links[number] = w
	if !u.up[number] {
		return nil
	}
	return u.applyLocked(number)
}

func (u *uplink) link(number int) Link {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.links[number].Link
}

// applyLocked makes the port be as its link says: plugged into the bridge, plugged into nothing, or behind a relay.
func (u *uplink) applyLocked(number int) error {
	l := u.links[number]
	u.stopRelayLocked(number)
	switch {
	case l.whole():
		return u.ns.Plug(portName(number), bridgeName)
	case l.CutIn && l.CutOut:
		return u.ns.Plug(portName(number), "")
	}
	if err := u.ns.Plug(portName(number), ""); err != nil {
		return err
	}
	far, near := fmt.Sprintf("far%d", number), fmt.Sprintf("near%d", number)
	if err := u.ns.Remove(near); err != nil {
		return err
	}
	if err := u.ns.AddPair(near, far); err != nil {
		return err
	}
	if err := u.ns.Plug(far, bridgeName); err != nil {
		return err
	}
	r, err := startRelay(u.ns, portName(number), near, l)
	if err != nil {
		return err
	}
	u.relays[number] = r
	return nil
}

func (u *uplink) stopRelayLocked(number int) {
	r := u.relays[number]
	if r == nil {
		return
	}
	delete(u.relays, number)
	r.close()
	if err := u.ns.Remove(fmt.Sprintf("near%d", number)); err != nil {
		u.log.Error("cannot remove a relay's devices", "err", err)
	}
}
