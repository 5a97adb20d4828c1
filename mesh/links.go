package mesh

import (
	"fmt"
	"time"

	"drover"
)

// LinkState is how packets pass between this host and another.
type LinkState string

// The states. "To" is from this host to the other one, "from" the way back.
const (
	// LinkOK: both directions work.
	LinkOK LinkState = "ok"
	// LinkNew: it is too early to tell.
	LinkNew LinkState = "new"
	// LinkToDead: what this host sends does not arrive, what the other sends does.
	LinkToDead LinkState = "to-dead"
	// LinkFromDead: nothing arrives from the other host. Whether what is sent to it arrives, only that one knows.
	LinkFromDead LinkState = "from-dead"
	// LinkLargeDead: small packets pass, large ones do not arrive at the other host.
	LinkLargeDead LinkState = "large-dead"
)

// linkBad is how long answers must be missing until a link counts as dead: several probes in a row.
const linkBad = 5 * probeEvery

// rawBad is that for packets which cannot be read: a WireGuard without a session tries a handshake every 5 s, and waits up to a third of a second more.
const rawBad = 15 * time.Second

// rawNews is how much later than the last probe of a peer something must have come from it, until it says that packets still come.
const rawNews = 2 * probeEvery

// sighting is what was seen of a peer: the times of the last probe of its own, of the last answers to a small and a large probe, and of the last packet
// of any kind.
type sighting struct {
	since                        time.Time
	asked, answered, answeredBig time.Time
	raw                          time.Time
	rtt                          time.Duration
}

// judge decides how the link is.
func (s sighting) judge(now time.Time) LinkState {
	fresh := func(t time.Time, within time.Duration) bool { return !t.IsZero() && now.Sub(t) <= within }
	young := now.Sub(s.since) <= 2*linkBad
	switch {
	case fresh(s.answered, linkBad):
		if !fresh(s.answeredBig, bigEvery*linkBad) && now.Sub(s.since) > bigEvery*linkBad {
			return LinkLargeDead
		}
		return LinkOK
	case young:
		return LinkNew
	case fresh(s.asked, linkBad), fresh(s.raw, rawBad) && s.raw.Sub(s.asked) > rawNews:
		return LinkToDead
	}
	return LinkFromDead
}

// Text says for people what a state means between two hosts.
func (s LinkState) Text(self, peer drover.HostID) string {
	switch s {
	case LinkToDead:
		return fmt.Sprintf("packets from %s to %s do not arrive; those from %s to %s do", self, peer, peer, self)
	case LinkFromDead:
		return fmt.Sprintf("no packets arrive from %s at %s", peer, self)
	case LinkLargeDead:
		return fmt.Sprintf("large packets from %s to %s do not arrive; small ones do", self, peer)
	case LinkNew:
		return fmt.Sprintf("it is too early to tell how packets pass between %s and %s", self, peer)
	}
	return fmt.Sprintf("packets pass between %s and %s in both directions", self, peer)
}

// Bad reports whether somebody should look at the link.
func (s LinkState) Bad() bool { return s == LinkToDead || s == LinkFromDead || s == LinkLargeDead }
