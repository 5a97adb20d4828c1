package nbd

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// wire is the client's end of a connection on which every byte is written by hand.
type wire struct {
	tb testing.TB
	net.Conn
}

func connect(tb testing.TB, network, address string) *wire {
	tb.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() }) //nolint:errcheck // some tests have closed it
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		tb.Fatal(err)
	}
	return &wire{tb: tb, Conn: conn}
}

func (w *wire) send(parts ...[]byte) {
	w.tb.Helper()
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			w.tb.Fatal(err)
		}
	}
}

func (w *wire) receive(n int) []byte {
	w.tb.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(w, b); err != nil {
		w.tb.Fatal(err)
	}
	return b
}

// wantEnd fails the test unless the server ends the connection without a further byte.
func (w *wire) wantEnd() {
	w.tb.Helper()
	n, err := io.Copy(io.Discard, w)
	if timeout, ok := err.(net.Error); n != 0 || ok && timeout.Timeout() {
		w.tb.Fatalf("got %d bytes and %v; want the end of the connection", n, err)
	}
}

// greet reads the greeting and answers with flags.
func (w *wire) greet(flags uint32) {
	w.tb.Helper()
	b := w.receive(greetingSize)
	if binary.BigEndian.Uint64(b) != magicInit || binary.BigEndian.Uint64(b[8:]) != magicOption || binary.BigEndian.Uint16(b[16:]) != 3 {
		w.tb.Fatalf("greeting % x", b)
	}
	w.send(binary.BigEndian.AppendUint32(nil, flags))
}

// reply reads one reply to an option.
func (w *wire) reply(opt option) (optionReply, string) {
	w.tb.Helper()
	b := w.receive(optionReplySize)
	if binary.BigEndian.Uint64(b) != magicOptionReply || option(binary.BigEndian.Uint32(b[8:])) != opt {
		w.tb.Fatalf("reply % x to %s", b, opt)
	}
	return optionReply(binary.BigEndian.Uint32(b[12:])), string(w.receive(int(binary.BigEndian.Uint32(b[16:]))))
}

// ask sends an option and returns the last reply.
func (w *wire) ask(opt option, data []byte) (optionReply, string) {
	w.tb.Helper()
	w.send(appendOption(nil, opt, data))
	for {
		rep, text := w.reply(opt)
		if rep == repAck || rep&repError != 0 {
			return rep, text
		}
	}
}

func (w *wire) wantReply(opt option, data []byte, want optionReply) string {
	w.tb.Helper()
	rep, text := w.ask(opt, data)
	if rep != want {
		w.tb.Fatalf("%s is answered with %#x %q, want %#x", opt, uint32(rep), text, uint32(want))
	}
	return text
}

func infoRequest(name string, kinds ...uint16) []byte {
	b := binary.BigEndian.AppendUint16(appendString(nil, name), uint16(len(kinds)))
	for _, k := range kinds {
		b = binary.BigEndian.AppendUint16(b, k)
	}
	return b
}

func metaRequest(name string, queries ...string) []byte {
	b := binary.BigEndian.AppendUint32(appendString(nil, name), uint32(len(queries)))
	for _, q := range queries {
		b = appendString(b, q)
	}
	return b
}

// attach begins the transmission phase with simple replies.
func attach(tb testing.TB, network, address, export string) *wire {
	tb.Helper()
	w := connect(tb, network, address)
	w.greet(3)
	w.wantReply(optGo, infoRequest(export), repAck)
	return w
}

func (w *wire) request(kind command, cookie, offset uint64, length uint32, payload ...[]byte) {
	w.tb.Helper()
	h := requestHeader{kind: kind, cookie: cookie, offset: offset, length: length}
	w.send(append([][]byte{h.append(nil)}, payload...)...)
}

// simple reads a simple reply without data.
func (w *wire) simple() (cookie uint64, e errno) {
	w.tb.Helper()
	b := w.receive(simpleReplySize)
	if binary.BigEndian.Uint32(b) != magicSimple {
		w.tb.Fatalf("reply % x", b)
	}
	return binary.BigEndian.Uint64(b[8:]), errno(binary.BigEndian.Uint32(b[4:]))
}

func (w *wire) wantSimple(cookie uint64, want errno) {
	w.tb.Helper()
	if c, e := w.simple(); c != cookie || e != want {
		w.tb.Fatalf("reply %d: %s; want %d: %s", c, e, cookie, want)
	}
}
