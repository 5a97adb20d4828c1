package mesh

import (
	"os"
	"slices"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"
)

// handedOn is how many packets wait for an end that does not read itself: then the one that reads waits, and the kernel keeps what comes.
const handedOn = 1024

// lane is what packets come in by, the TUN device or a socket, and what one end reads at a time: the one that has the turn. It hands on what is another
// end's. With a single end that costs nothing; with several a copy of what is not the reader's own.
type lane struct {
	token chan struct{}
	// want is who is to have the turn. Who has it and is not that one any more gives it back before it reads again.
	want atomic.Pointer[end]
}

func newLane() *lane {
	l := &lane{token: make(chan struct{}, 1)}
	l.token <- struct{}{}
	return l
}

// parcel is a packet that was handed on: of the TUN device with its outer header, of a socket with where it came from.
type parcel struct {
	data []byte
	from conn.Endpoint
}

// reader is an end at a lane. Its wait is called by one goroutine.
type reader struct {
	lane   *lane
	end    *end
	queue  chan parcel
	has    atomic.Bool
	closed chan struct{}
}

func newReader(l *lane, e *end) *reader {
	return &reader{lane: l, end: e, queue: make(chan parcel, handedOn), closed: make(chan struct{})}
}

// wait waits until the end has something to read: itself (mine), or what was handed on to it, which comes first. os.ErrClosed when the end is closed.
func (r *reader) wait() (first parcel, mine bool, err error) {
	for {
		wanted := r.lane.want.Load() == r.end
		if r.has.Load() {
			if wanted {
				select {
				case p := <-r.queue:
					return p, false, nil
				default:
					return parcel{}, true, nil
				}
			}
			r.has.Store(false)
			r.lane.token <- struct{}{}
			continue
		}
		var token chan struct{}
		if wanted {
			token = r.lane.token
		}
		select {
		case p := <-r.queue:
			return p, false, nil
		case <-token:
			r.has.Store(true)
		case <-r.closed:
			return parcel{}, false, os.ErrClosed
		}
	}
}

// take fills buffers with what was handed on, beginning with the parcel that is here. An empty one, by which an end is woken, is none.
func (r *reader) take(first parcel, bufs [][]byte, sizes []int, offset int, each func(i int, from conn.Endpoint)) int {
	n := 0
	for p := first; ; {
		if len(p.data) > 0 && offset+len(p.data) <= len(bufs[n]) {
			sizes[n] = copy(bufs[n][offset:], p.data)
			each(n, p.from)
			n++
		}
		if n == len(bufs) {
			return n
		}
		select {
		case p = <-r.queue:
		default:
			return n
		}
	}
}

// hand gives a packet to the reader's end; one that closes meanwhile has no use for it.
func (r *reader) hand(p parcel) {
	select {
	case r.queue <- p:
	case <-r.closed:
	}
}

// copied hands on a copy of a packet.
func (r *reader) copied(b []byte, from conn.Endpoint) { r.hand(parcel{slices.Clone(b), from}) }
