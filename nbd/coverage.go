package nbd

import "slices"

// maxPieces bounds the separate pieces of a reply that arrive out of order.
const maxPieces = 1024

// span is the bytes from from up to, not including, to.
type span struct{ from, to int64 }

// coverage knows which bytes of a read have arrived. Chunks may come in any order, but none may come twice.
type coverage struct {
	spans []span // in order, neither touching nor overlapping
}

func (c *coverage) reset() { c.spans = c.spans[:0] }

// add reports false when some of the bytes were there already, or the pieces are too many.
func (c *coverage) add(from, to int64) bool {
	i := len(c.spans)
	for i > 0 && c.spans[i-1].from >= to {
		i--
	}
	// i is where a span after the new one begins.
	if i > 0 && c.spans[i-1].to > from {
		return false
	}
	joinsLeft := i > 0 && c.spans[i-1].to == from
	joinsRight := i < len(c.spans) && c.spans[i].from == to
	switch {
	case joinsLeft && joinsRight:
		c.spans[i-1].to = c.spans[i].to
		c.spans = slices.Delete(c.spans, i, i+1)
	case joinsLeft:
		c.spans[i-1].to = to
	case joinsRight:
		c.spans[i].from = from
	case len(c.spans) >= maxPieces:
		return false
	default:
		c.spans = slices.Insert(c.spans, i, span{from, to})
	}
	return true
}

// complete tells whether the first n bytes have arrived.
func (c *coverage) complete(n int64) bool {
	return len(c.spans) == 1 && c.spans[0] == span{0, n}
}
