package nbd

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"

	"drover"
)

// pieced is memory of which pieces are at hand up to an offset; what is beyond is left to ReadAt.
type pieced struct {
	*memory
	upTo   int64
	pieces atomic.Int64
	fails  atomic.Bool // ReadAt does
}

func (p *pieced) TryReadPiece(b []byte, off int64) bool {
	if off+int64(len(b)) > p.upTo {
		return false
	}
	p.pieces.Add(1)
	return p.memory.ReadAt(context.Background(), b, off) == nil
}

func (p *pieced) ReadAt(ctx context.Context, b []byte, off int64) error {
	if p.fails.Load() {
		return drover.Errorf(drover.Internal, "the disk is broken")
	}
	return p.memory.ReadAt(ctx, b, off)
}

// piecedSize is that of the export, blockStep how far the reads of TestPiecesBesideOtherReplies lie apart.
const (
	piecedSize = 3 << 20
	blockStep  = 100_000
)

func startPieced(t *testing.T, upTo int64) (*pieced, *Client) {
	t.Helper()
	p := &pieced{memory: newMemory(t, piecedSize), upTo: upTo}
	for i := range p.content {
		p.content[i] = byte(i>>12) ^ byte(i)
	}
	s := newShelf()
	s.add("e", p, piecedSize, false)
	return p, dial(t, "unix", startServer(t, "unix", s, nil), "e", nil)
}

// A large read that is at hand in part comes whole: in pieces up to there, and the rest as one.
func TestLargeReadsAreSentInPieces(t *testing.T) {
	for _, upTo := range []int64{0, 1, pieceSize, 5*pieceSize + 100, piecedSize} {
		p, c := startPieced(t, upTo)
		for _, at := range []struct{ off, n int64 }{{0, piecedSize}, {0, 1 << 20}, {4097, 2<<20 + 1}, {piecedSize - maxInline - 1, maxInline + 1}} {
			got := make([]byte, at.n)
			if err := c.ReadAt(t.Context(), got, at.off); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, p.content[at.off:at.off+at.n]) {
				t.Errorf("with pieces up to %d, %d bytes at %d are not what is there", upTo, at.n, at.off)
			}
		}
		if sent := p.pieces.Load(); (sent > 0) != (upTo >= pieceSize) {
			t.Errorf("with pieces up to %d, %d were sent", upTo, sent)
		}
	}
}

// A read of which pieces were sent already can still fail, and the connection is good.
func TestAReadFailsBehindItsFirstPieces(t *testing.T) {
	p, c := startPieced(t, 2*pieceSize)
	p.fails.Store(true)
	wantCode(t, c.ReadAt(t.Context(), make([]byte, 1<<20), 0), drover.Internal)
	p.fails.Store(false)
	got := make([]byte, 2*pieceSize)
	if err := c.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, p.content[:len(got)]) {
		t.Errorf("afterwards a read gives %v, or something else", err)
	}
}

// Large reads and others at once on one connection, so that pieces find another writing.
func TestPiecesBesideOtherReplies(t *testing.T) {
	p, c := startPieced(t, 10*pieceSize)
	done := make(chan error, 16)
	for i := range 16 {
		go func() {
			n, off := int64(1<<20), int64(i)*blockStep
			if i%2 == 0 {
				n = 8192
			}
			got := make([]byte, n)
			err := error(nil)
			for range 20 {
				if err = c.ReadAt(t.Context(), got, off); err != nil {
					break
				}
				if !bytes.Equal(got, p.content[off:off+n]) {
					err = drover.Errorf(drover.Internal, "%d bytes at %d are not what is there", n, off)
					break
				}
			}
			done <- err
		}()
	}
	for range 16 {
		if err := await(t, done, "reads"); err != nil {
			t.Error(err)
		}
	}
}
