package ramcopy

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"drover"
)

// span is a part of the memory that has content, of at most a chunk.
type span struct{ begin, end int64 }

// find walks over the memory: what has content goes to the readers, and what had some and has none any more (a balloon gives memory back) is told the receiver.
func (s *Sender) find(ctx context.Context, spans chan<- span, batches chan<- *batch) error {
	for at := int64(0); at < s.size; {
		begin, end, err := s.content(at)
		if err != nil {
			return err
		}
		if err := s.emptied(ctx, at, begin, batches); err != nil {
			return err
		}
		for at = begin; at < end; {
			sp := span{begin: at, end: min(at-at%chunk+chunk, end)}
			if err := pass(ctx, spans, sp); err != nil {
				return err
			}
			at = sp.end
			s.setRemaining(s.size - at)
		}
	}
	return nil
}

// content returns the next part that has content, in whole pages; size for none.
func (s *Sender) content(at int64) (begin, end int64, err error) {
	fd := int(s.memory.Fd())
	begin, err = unix.Seek(fd, at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return s.size, s.size, nil
	}
	if err == nil {
		end, err = unix.Seek(fd, begin, unix.SEEK_HOLE)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("cannot find out what the memory holds: %w", err)
	}
	begin, end = begin-begin%pageSize, end+(-end&(pageSize-1))
	return min(begin, s.size), min(end, s.size), nil
}

// emptied passes on which pages of a part without content had some when they were sent.
func (s *Sender) emptied(ctx context.Context, begin, end int64, out chan<- *batch) error {
	b := s.free.Get().(*batch)
	b.runs = b.runs[:0]
	for at := begin; at < end; at += pageSize {
		if known := &s.tags[at/pageSize]; *known != (tag{}) {
			*known = tag{}
			b.add(frameZeroes, at, nil)
		}
	}
	if len(b.runs) == 0 {
		s.free.Put(b)
		return nil
	}
	return pass(ctx, out, b)
}

// setRemaining notes how much of the memory is still to be looked at, while the first pass goes on.
func (s *Sender) setRemaining(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended.IsZero() {
		s.progress.Remaining = drover.Bytes(n)
	}
}
