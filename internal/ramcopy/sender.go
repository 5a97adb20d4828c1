package ramcopy

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"drover"
)

const (
	// chunk is how much of the memory is looked at, and sent, at a time.
	chunk = 256 << 10
	// maxReaders bounds how many chunks are looked at at once.
	maxReaders = 4
	// writeBuffer gathers what lies scattered.
	writeBuffer = 64 << 10
)

// Sender sends a memory. One goroutine uses it; Progress may be called by any.
type Sender struct {
	memory *os.File
	size   int64
	tags   []tag
	tagger *tagger
	limit  *rate.Limiter // nil for none
	free   sync.Pool     // of *batch

	conn  io.ReadWriter
	out   *bufio.Writer
	marks uint64
	speed float64 // bytes per second of the first pass of the connection

	mu       sync.Mutex
	ended    time.Time // of the last pass; zero before the first one of a connection
	progress drover.MemoryMove
	sent     atomic.Int64 // bytes on all connections
}

// Pass is what a pass over the memory found.
type Pass struct {
	// Changed is what was sent; Rest how long that would take again, if nothing bounds it.
	Changed drover.Bytes
	Rest    time.Duration
}

// NewSender makes a sender of the first size bytes of a file. bandwidth bounds it, in bytes per second; 0 is no limit.
func NewSender(memory *os.File, size, bandwidth drover.Bytes) (*Sender, error) {
	t, err := newTagger()
	if err != nil {
		return nil, err
	}
	s := &Sender{memory: memory, size: int64(size), tagger: t, progress: drover.MemoryMove{Total: size}}
	s.free.New = func() any { return &batch{buf: make([]byte, chunk)} }
	if bandwidth > 0 {
		s.limit = rate.NewLimiter(rate.Limit(bandwidth), chunk)
	}
	return s, nil
}

// Attach begins with another receiver, or anew with the same one: everything is sent again. It returns the address that the receiver told.
// Precondition when it cannot take this memory; any other error is the connection's.
func (s *Sender) Attach(conn io.ReadWriter) (state string, err error) {
	s.conn, s.out, s.marks = conn, bufio.NewWriterSize(countWriter{conn, &s.sent}, writeBuffer), 0
	s.tags, s.speed = make([]tag, (s.size+pageSize-1)/pageSize), 0
	s.mu.Lock()
	s.ended = time.Time{}
	s.mu.Unlock()
	return readGreeting(conn, s.size)
}

// Progress tells how far it is.
func (s *Sender) Progress() drover.MemoryMove {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.progress
	p.Transferred = drover.Bytes(s.sent.Load())
	return p
}

// Pass looks at the whole memory once, and sends what changed. It returns when the receiver has that. The first pass of a connection sends all that is not zero.
func (s *Sender) Pass(ctx context.Context) (Pass, error) { return s.pass(ctx, s.limit, frameMark) }

// Last is the pass over a memory that does not change any more: bandwidth does not bound it, and when it returns nil the receiver has all, and
// takes no more.
func (s *Sender) Last(ctx context.Context) error {
	_, err := s.pass(ctx, nil, frameEnd)
	return err
}

func (s *Sender) pass(ctx context.Context, limit *rate.Limiter, kind byte) (p Pass, err error) {
	begin := time.Now()
	var waited time.Duration
	p.Changed, waited, err = s.sendChanged(ctx, limit)
	if err == nil {
		err = s.mark(kind)
	}
	if err != nil {
		return p, err
	}
	end := time.Now()
	took := end.Sub(begin) - waited
	if s.speed == 0 && p.Changed > 0 {
		s.speed = float64(p.Changed) / max(took.Seconds(), 1e-6)
	}
	if s.speed > 0 {
		p.Rest = time.Duration(float64(p.Changed) / s.speed * float64(time.Second))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.progress.Rounds++
	s.progress.Remaining, s.progress.Rate = 0, drover.Bytes(float64(p.Changed)/max(end.Sub(begin).Seconds(), 1e-6))
	if !s.ended.IsZero() {
		s.progress.DirtyRate = drover.Bytes(float64(p.Changed) / max(end.Sub(s.ended).Seconds(), 1e-6))
	}
	s.ended = end
	return p, nil
}

// batch is a chunk of the memory with the runs of it that are to be sent.
type batch struct {
	buf  []byte
	runs []run
}

// run is a part of the memory: pages at an offset, or nothing.
type run struct {
	kind           byte
	offset, length int64
	data           []byte
}

// sendChanged reads, compares and sends, all at once.
func (s *Sender) sendChanged(ctx context.Context, limit *rate.Limiter) (changed drover.Bytes, waited time.Duration, err error) {
	group, ctx := errgroup.WithContext(ctx)
	spans, batches := make(chan span, maxReaders), make(chan *batch, maxReaders)
	var finders sync.WaitGroup // all that put batches in
	finders.Add(1)
	group.Go(func() error {
		defer finders.Done()
		defer close(spans)
		return s.find(ctx, spans, batches)
	})
	for range min(runtime.GOMAXPROCS(0), maxReaders) {
		finders.Add(1)
		group.Go(func() error {
			defer finders.Done()
			for sp := range spans {
				if err := s.compare(ctx, sp, batches); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		finders.Wait()
		close(batches)
		return nil
	})
	group.Go(func() (err error) {
		changed, waited, err = s.write(ctx, limit, batches)
		return err
	})
	return changed, waited, group.Wait()
}

// compare reads a part of the memory, and passes on what is not what was sent.
func (s *Sender) compare(ctx context.Context, sp span, out chan<- *batch) error {
	b := s.free.Get().(*batch)
	b.runs = b.runs[:0]
	data := b.buf[:sp.end-sp.begin]
	// What is sent is what was compared: the guest may write to the memory meanwhile, but not to this.
	if _, err := s.memory.ReadAt(data, sp.begin); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("cannot read the memory: %w", err)
	}
	for at := sp.begin; at < sp.end; at += pageSize {
		page := data[at-sp.begin:][:pageSize]
		now, known := s.tagger.of(page), &s.tags[at/pageSize]
		if now == *known {
			continue
		}
		*known = now
		kind := byte(framePages)
		if now == (tag{}) {
			kind = frameZeroes
		}
		b.add(kind, at, page)
	}
	if len(b.runs) == 0 {
		s.free.Put(b)
		return nil
	}
	return pass(ctx, out, b)
}

func pass[T any](ctx context.Context, out chan<- T, v T) error {
	select {
	case out <- v:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// add notes a page. data is nil, or a part of the buffer.
func (b *batch) add(kind byte, at int64, data []byte) {
	if n := len(b.runs) - 1; n >= 0 && b.runs[n].kind == kind && b.runs[n].offset+b.runs[n].length == at {
		r := &b.runs[n]
		r.length += pageSize
		if data != nil {
			r.data = r.data[:r.length]
		}
		return
	}
	b.runs = append(b.runs, run{kind: kind, offset: at, length: pageSize, data: data})
}

// write sends what was found.
func (s *Sender) write(ctx context.Context, limit *rate.Limiter, batches <-chan *batch) (changed drover.Bytes, waited time.Duration, err error) {
	for b := range batches {
		for _, r := range b.runs {
			if limit != nil && r.kind == framePages {
				begin := time.Now()
				if err := limit.WaitN(ctx, int(r.length)); err != nil {
					return changed, waited, context.Cause(ctx)
				}
				waited += time.Since(begin)
			}
			var head [headSize]byte
			if _, err := s.out.Write(putHead(&head, r.kind, r.offset, r.length)); err != nil {
				return changed, waited, err
			}
			if r.kind == framePages {
				if _, err := s.out.Write(r.data); err != nil {
					return changed, waited, err
				}
				changed += drover.Bytes(r.length)
			}
		}
		s.free.Put(b)
	}
	return changed, waited, ctx.Err()
}

// mark waits until the receiver has everything that was sent.
func (s *Sender) mark(kind byte) error {
	s.marks++
	var head [headSize]byte
	if _, err := s.out.Write(putHead(&head, kind, int64(s.marks), 0)); err != nil {
		return err
	}
	if err := s.out.Flush(); err != nil {
		return err
	}
	var answer [8]byte
	if _, err := io.ReadFull(s.conn, answer[:]); err != nil {
		return err
	}
	if got := binary.BigEndian.Uint64(answer[:]); got != s.marks {
		return fmt.Errorf("the answer to mark %d is %d", s.marks, got)
	}
	return nil
}

// countWriter counts what goes out.
type countWriter struct {
	w    io.Writer
	sent *atomic.Int64
}

func (c countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.sent.Add(int64(n))
	return n, err
}
