package guest

import (
	"context"
	"encoding/binary"
	"io"

	"drover"
	"drover/internal/frames"
)

// Streams go over the agent port beside requests and answers: the payload of their frames begins with streamMark, which no JSON does, then the ID of
// the request that began the stream, in 4 bytes, and the frame. So that Magic does not occur in them either, three bytes 0xFF in a row are
// followed by a zero that does not count.

// streamMark begins the payload of a stream's frame.
const streamMark = 1

// streamHead is what comes before the frame.
const streamHead = 1 + 4

// OpStream starts a command with a stream. Its answer comes when the stream is there; frames follow.
const OpStream = "stream"

// EncodeStream returns the bytes of a stream's frame.
func EncodeStream(id uint64, f frames.Frame) []byte {
	plain := binary.BigEndian.AppendUint32([]byte{streamMark}, uint32(id))
	plain = f.Append(plain)
	out := make([]byte, 4, 4+len(plain)+len(plain)/3)
	run := 0
	for _, b := range plain {
		out = append(out, b)
		if b != 0xff {
			run = 0
			continue
		}
		if run++; run == 3 {
			out, run = append(out, 0), 0
		}
	}
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out
}

// DecodeStream reads the payload of a frame; ok is false when it is not a stream's.
func DecodeStream(payload []byte) (id uint64, f frames.Frame, ok bool) {
	if len(payload) < streamHead || payload[0] != streamMark {
		return 0, f, false
	}
	plain := payload[:0]
	run := 0
	for _, b := range payload {
		if run == 3 {
			run = 0
			continue
		}
		if plain = append(plain, b); b == 0xff {
			run++
		} else {
			run = 0
		}
	}
	if len(plain) < streamHead {
		return 0, f, false
	}
	f, err := frames.Parse(plain[streamHead:])
	return uint64(binary.BigEndian.Uint32(plain[1:])), f, err == nil
}

// clientStream is the host's end of a stream.
type clientStream struct {
	client *Client
	id     uint64
	queue  *frames.Queue
}

var _ frames.Conn = (*clientStream)(nil)

// Stream starts a command whose input and output go by a stream. The command is hung up when the stream is closed before it has ended. A
// command that cannot be run has exit code 127 or 126 and says why on stderr. Exhausted when too many run.
func (c *Client) Stream(ctx context.Context, req drover.ExecStreamRequest) (frames.Conn, error) {
	s := &clientStream{client: c, queue: frames.NewQueue()}
	_, err := c.callWith(ctx, Request{Op: OpStream, Argv: req.Command, Env: req.Env, Terminal: req.Terminal, TerminalSize: req.Size,
		Timeout: drover.Duration(req.Timeout)}, func(id uint64) {
		s.id = id
		c.streams[id] = s
	})
	if err != nil {
		s.Close() // there is nothing to end, or the guest ends it
		return nil, err
	}
	return s, nil
}

// Send sends the guest a frame.
func (s *clientStream) Send(ctx context.Context, f frames.Frame) error {
	ctx, cancel := bounded(ctx, defaultAnswer)
	defer cancel()
	return s.client.write(ctx, OpStream, EncodeStream(s.id, f))
}

// Receive returns the guest's next frame.
func (s *clientStream) Receive(ctx context.Context) (frames.Frame, error) { return s.queue.Get(ctx) }

// Close hangs up on the command, if it still runs.
func (s *clientStream) Close() error {
	s.client.mu.Lock()
	known := s.client.streams[s.id] == s
	delete(s.client.streams, s.id)
	s.client.mu.Unlock()
	s.queue.End(io.EOF)
	if !known {
		return nil
	}
	return s.client.cancelRequest(s.id)
}

// deliverFrame hands a frame to its stream; one of a stream that was closed is dropped. It never waits.
func (c *Client) deliverFrame(id uint64, f frames.Frame) {
	c.mu.Lock()
	s := c.streams[id]
	full := s != nil && !s.queue.Put(f)
	if s != nil && f.Ends() {
		delete(c.streams, id)
	}
	c.mu.Unlock()
	if full {
		s.queue.End(drover.Errorf(drover.Internal, "the guest sent more than there is room for"))
	}
}

// endStreams ends all streams of a connection that is gone.
func (c *Client) endStreams() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		s.queue.End(frames.Cut(drover.Errorf(drover.Unavailable, "the machine does not run any more, or it runs elsewhere")))
	}
	c.streams = map[uint64]*clientStream{}
}
