package vhostuser

import "time"

const (
	// holdTime is how long a completion is held back at most while others are waited for.
	holdTime = 300 * time.Microsecond
	// dryTime without a request says that the guest waits.
	dryTime = 200 * time.Microsecond
	// mostHeld is how many completions are announced together at most.
	mostHeld = 8
	// firstPause and longestPause lie between two trials of a limit that is too high; alonePause and longestAlone when the guest had nothing but the one completion
	// that was held back: it seldom is another guest a moment later, and each trial is one of its slowest requests.
	firstPause   = time.Millisecond
	longestPause = 32 * time.Millisecond
	alonePause   = 32 * time.Millisecond
	longestAlone = 256 * time.Millisecond
)

// holder decides how many completions are announced to the guest together. An interrupt costs a guest more than a small request does, and a guest
// that has others to go on with loses nothing by one that comes later; a guest that waits for this very completion loses the time.
//
// Which of the two a guest does is found out by trying. A limit that is reached, because the guest makes further requests meanwhile, is
// doubled. When the guest waits instead the limit falls to half of what came, so that it never runs out of requests again, and a higher one is tried
// more and more seldom until the highest was reached. A guest with one request at a time is told of each at once, but for one in longestAlone.
type holder struct {
	limit int       // completions that are announced together; 0 is 1
	held  int       // completions that are not announced
	since time.Time // when the first of them was completed
	last  time.Time // when the last was
	pause time.Duration
	again time.Time // when a higher limit may be tried
}

// add counts a completion, and reports whether they are to be announced now.
func (h *holder) add(now time.Time) bool {
	if h.since.IsZero() {
		h.since = now
	}
	h.held, h.last = h.held+1, now
	return h.held >= h.limit
}

// announced takes note that the guest was told, because the limit was reached or for another reason.
func (h *holder) announced(now time.Time) {
	full := h.held >= h.limit
	h.held, h.since = 0, time.Time{}
	switch {
	case !full:
	case h.limit == mostHeld:
		h.pause = 0
	case now.Before(h.again):
	default:
		h.limit = min(max(h.limit, 1)*2, mostHeld)
	}
}

// left tells how long to wait for more; 0 when what is held is to be announced. It is asked when there is nothing to take.
func (h *holder) left(now time.Time) time.Duration { return max(0, holdTime-now.Sub(h.since)) }

// expired takes note that the limit was not reached in time. A guest that went on until now is a slow one: what came is the limit then.
func (h *holder) expired(now time.Time) {
	if now.Sub(h.last) < dryTime {
		h.limit = max(h.held, 2)
		return
	}
	h.limit = max(1, h.held/2)
	first, longest := firstPause, longestPause
	if h.held == 1 {
		first, longest = alonePause, longestAlone
	}
	h.pause = min(max(2*h.pause, first), longest)
	h.again = now.Add(h.pause)
}
