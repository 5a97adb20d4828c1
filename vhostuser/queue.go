package vhostuser

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/fault"
)

// queue is one ring of the device. Two locks: mu is held by whoever takes requests, or changes the ring; usedMu, inside mu, by whoever
// records that a request was taken or done.
type queue struct {
	d     *Device
	index int

	mu       sync.Mutex
	num      int
	at       ringAddress
	base     uint16
	enabled  bool
	running  bool
	broken   bool // the guest's side makes no sense; until the ring is stopped nothing is taken
	indirect bool
	bell     *bell
	requests []request
	faults   *fault.Points // nil unless one is armed: requests are too many to look each time
	again    []uint16      // in flight when the process before this one ended; to be done first

	usedMu   sync.Mutex
	ring     ring
	inflight *inflight
	logged   bool   // the used ring's own pages are logged
	logAddr  uint64 // its guest address
	call     int    // -1 without
	failFD   int    // told when the ring is broken; -1 without
	dead     bool   // nothing may be written to guest memory any more
	under    int    // requests that were taken and not completed
	hold     holder // of completions that are not announced yet
	idle     *sync.Cond
}

func newQueue(d *Device, index int) *queue {
	q := &queue{d: d, index: index, call: -1, failFD: -1}
	q.idle = sync.NewCond(&q.usedMu)
	return q
}

// start begins with the ring. q.mu is held.
func (q *queue) start(b *bell) error {
	tracked, err := q.d.inflight.queue(q.index, q.num)
	if err != nil {
		return err
	}
	q.usedMu.Lock()
	defer q.usedMu.Unlock()
	if q.dead {
		return bad("the connection is ending")
	}
	q.ring = ring{num: uint16(q.num), eventIdx: q.d.features&featEventIdx != 0}
	if q.d.mem == nil {
		return bad("ring %d begins before the guest's memory is known", q.index)
	}
	if err := q.ring.place(q.d.mem, q.at); err != nil {
		return err
	}
	q.faults = nil
	if q.d.cfg.Faults.Armed("vhostuser.") {
		q.faults = q.d.cfg.Faults
	}
	q.indirect = q.d.features&featIndirect != 0
	q.inflight, q.again = tracked, nil
	q.ring.usedIdx = q.ring.readUsedIdx()
	q.ring.lastAvail, q.ring.signalled = q.base, q.ring.usedIdx
	if tracked != nil {
		if q.again, err = tracked.recover(q.ring.usedIdx); err != nil {
			return err
		}
		q.ring.lastAvail = q.ring.usedIdx + uint16(len(q.again))
	}
	if len(q.requests) != q.num {
		q.requests = make([]request, q.num)
	}
	q.bell, q.running, q.broken = b, true, false
	q.signal() // what the process before this one completed may not have been told
	q.d.queues.Go(func() { q.run(b) })
	return nil
}

// stop ends taking requests and waits for those that were taken. It returns the position to go on from.
func (q *queue) stop() (base uint16) {
	q.mu.Lock()
	q.haltLocked()
	b := q.bell
	q.mu.Unlock()
	if b != nil {
		<-b.done // it could take a kick that is meant for the ring when it begins again
	}
	q.usedMu.Lock()
	for q.under > 0 && !q.dead {
		q.idle.Wait()
	}
	if q.inflight != nil && q.broken && !q.dead {
		q.inflight.clear(q.ring.usedIdx) // what made no sense is never completed, and must not be found again
	}
	q.announceLocked(time.Now())
	q.usedMu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.base
}

// haltLocked ends taking requests. q.mu is held.
func (q *queue) haltLocked() {
	if q.running {
		q.running, q.base = false, q.ring.lastAvail
		q.bell.ring()
	}
}

// abandon makes sure that nothing of this ring is written to guest memory any more. Requests that are under way stay in flight.
func (q *queue) abandon() {
	q.usedMu.Lock()
	defer q.usedMu.Unlock()
	q.dead = true
	q.idle.Broadcast()
}

// run takes requests until the ring stops.
func (q *queue) run(b *bell) {
	defer close(b.done)
	for q.pass(b) {
		if err := b.wait(q.rest()); err != nil {
			q.d.log.Warn("a ring's kicks cannot be read any more", "queue", q.index, "err", err)
		}
	}
	if err := b.close(); err != nil {
		q.d.log.Warn("cannot close a ring's event descriptors", "queue", q.index, "err", err)
	}
}

// pass takes what is there, and returns false when the ring has stopped.
func (q *queue) pass(b *bell) bool {
	for {
		q.mu.Lock()
		if !q.running || q.bell != b {
			q.mu.Unlock()
			return false
		}
		more := false
		if q.enabled && !q.broken {
			var err error
			if more, err = q.takeAll(); err != nil {
				q.breakLocked(err)
			}
		}
		q.mu.Unlock()
		if !more {
			return true
		}
	}
}

// breakLocked gives a ring up that makes no sense, until the guest resets it.
func (q *queue) breakLocked(err error) {
	q.broken = true
	q.d.log.Warn("a ring of the guest makes no sense and is given up until the guest resets it", "queue", q.index, "err", err)
	q.usedMu.Lock()
	defer q.usedMu.Unlock()
	notify(q.failFD)
}

// takeAll takes the requests that are there now, at most one ring of them, and does those that need no waiting. It returns whether
// there may be more; if not, the guest has been asked to kick. q.mu is held.
func (q *queue) takeAll() (more bool, err error) {
	for len(q.again) > 0 {
		head := q.again[0]
		q.again = q.again[1:]
		if err := q.begin(head, false); err != nil {
			return false, err
		}
	}
	n, err := q.ring.pending()
	if err != nil {
		return false, err
	}
	if n > 0 {
		q.setWanted(false)
	}
	for range n {
		head, err := q.ring.nextHead()
		if err != nil {
			return false, err
		}
		if err := q.begin(head, true); err != nil {
			return false, err
		}
	}
	q.setWanted(true)
	n, err = q.ring.pending()
	return n > 0, err
}

// setWanted tells the guest whether kicks are wanted.
func (q *queue) setWanted(wanted bool) {
	q.usedMu.Lock()
	defer q.usedMu.Unlock()
	if q.dead {
		return
	}
	q.markUsed(q.ring.setWanted(wanted))
}

// begin takes a request and does it, or has it done. fresh tells those from the available ring from those that were in flight already.
func (q *queue) begin(head uint16, fresh bool) error {
	r := &q.requests[head]
	q.usedMu.Lock()
	if r.busy {
		q.usedMu.Unlock()
		return bad("descriptor %d is made available while it is in flight", head)
	}
	r.busy = true
	q.under++
	if fresh {
		if q.inflight != nil {
			q.faults.Hit("vhostuser.take.begun")
			q.inflight.take(head)
			q.faults.Hit("vhostuser.take.recorded")
		}
		q.ring.lastAvail++
	}
	q.usedMu.Unlock()

	r.q, r.head, r.mem = q, head, q.d.mem
	r.mem.hold()
	if err := r.parse(); err != nil {
		// There is nothing to answer. It stays in flight; the ring is broken, so that the guest has to begin anew.
		q.forget(r)
		return err
	}
	if status, done := r.try(); done {
		q.complete(r, status, false)
		return nil
	}
	q.d.hand(r)
	return nil
}

// forget ends a request without completing it.
func (q *queue) forget(r *request) {
	q.usedMu.Lock()
	q.endLocked(r)
	q.usedMu.Unlock()
}

func (q *queue) endLocked(r *request) {
	r.mem.release()
	r.mem, r.status, r.busy = nil, nil, false
	if q.under--; q.under == 0 {
		q.idle.Broadcast()
	}
}

// complete puts a request that is done into the used ring, and tells the guest: now, or when there are more.
func (q *queue) complete(r *request, status byte, announce bool) {
	q.usedMu.Lock()
	defer q.usedMu.Unlock()
	if q.dead || status == noStatus {
		q.endLocked(r)
		return
	}
	*r.status = status
	q.markData(r)
	head := r.head
	if q.inflight != nil {
		q.inflight.completing(head)
		q.faults.Hit("vhostuser.complete.begun")
	}
	off := q.ring.put(head, uint32(r.written)+statusBytes)
	q.markUsed(off, 8)
	q.endLocked(r) // before the guest can use the descriptor again
	q.ring.publish()
	q.markUsed(0, 4)
	if q.inflight != nil {
		q.faults.Hit("vhostuser.complete.published")
		q.inflight.completed(head, q.ring.usedIdx)
		q.faults.Hit("vhostuser.complete.recorded")
	}
	if now := time.Now(); q.hold.add(now) || announce {
		q.announceLocked(now)
	}
}

// announceLocked tells the guest of what was completed, if it wants to know. usedMu is held.
func (q *queue) announceLocked(now time.Time) {
	if q.hold.held == 0 {
		return
	}
	q.hold.announced(now)
	if !q.dead && q.ring.wantsInterrupt() {
		q.signal()
	}
}

// rest is called when there is nothing to take. It returns how long the ring's goroutine may sleep, for ever if negative.
func (q *queue) rest() time.Duration {
	q.usedMu.Lock()
	defer q.usedMu.Unlock()
	if q.hold.held == 0 {
		return -1
	}
	now := time.Now()
	if left := q.hold.left(now); left > 0 {
		return left
	}
	q.hold.expired(now)
	q.announceLocked(now)
	return -1
}

// markData marks what was written for a request in the frontend's log.
func (q *queue) markData(r *request) {
	log := q.d.dirty.Load()
	if log == nil || !q.d.logging.Load() {
		return
	}
	fence() // what was written is seen before it is looked whether the page is marked already
	left := uint64(r.written)
	for i, p := range r.in {
		n := min(left, uint64(len(p)))
		log.mark(r.addrs[i], n)
		left -= n
	}
	log.mark(r.statusAddr, statusBytes)
}

// markUsed marks a part of the used ring.
func (q *queue) markUsed(off, n uint64) {
	if q.logged {
		q.d.dirty.Load().mark(q.logAddr+off, n)
	}
}

// signal tells the guest to look at the used ring. usedMu is held, which keeps the descriptor open.
func (q *queue) signal() { notify(q.call) }

// eventCount is what is added to an event descriptor.
var eventCount = [8]byte{1}

// notify adds to an event descriptor. One that is full has been told already; one that fails is the frontend's loss.
func notify(fd int) {
	if fd >= 0 {
		_, _ = unix.Write(fd, eventCount[:])
	}
}
