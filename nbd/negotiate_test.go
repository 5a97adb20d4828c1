package nbd

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"drover"
)

func TestOptionsAreAnsweredAsTheProtocolSays(t *testing.T) {
	socket, _, s := exported(t, sample(sampleSize))
	long := strings.Repeat("x", maxString+1)
	w := connect(t, "unix", socket)
	w.greet(3)
	for _, tc := range []struct {
		opt  option
		data []byte
		want optionReply
	}{
		{99, nil, repErrUnsup},
		{optList, []byte{1}, repErrInvalid},
		{optList, nil, repAck},
		{optStartTLS, nil, repErrPolicy},
		{optStartTLS, []byte{1}, repErrInvalid},
		{optGo, nil, repErrInvalid},
		{optGo, []byte{0, 0, 0, 9, 'd'}, repErrInvalid},
		{optGo, append(infoRequest("disk"), 0), repErrInvalid},
		{optGo, infoRequest(long), repErrInvalid},
		{optGo, infoRequest("unknown"), repErrUnknown},
		{optGo, infoRequest("old"), repErrPolicy},
		{optInfo, infoRequest("disk", infoBlockSize, infoBlockSize, infoName, 77), repAck},
		{optSetMetaContext, metaRequest("disk", ContextAllocation), repErrInvalid}, // no structured replies yet
		{optStructuredReply, []byte{1}, repErrInvalid},
		{optStructuredReply, nil, repAck},
		{optStructuredReply, nil, repAck},
		{optSetMetaContext, metaRequest("disk", "base:", "x-other:thing", ContextAllocation), repAck},
		{optSetMetaContext, metaRequest("unknown", ContextAllocation), repErrUnknown},
		{optSetMetaContext, metaRequest(long), repErrInvalid},
		{optListMetaContext, metaRequest("disk"), repAck},
		{optListMetaContext, metaRequest("disk", "base:"), repAck},
		{optListMetaContext, append(metaRequest("disk"), 1), repErrInvalid},
		{optListMetaContext, binary.BigEndian.AppendUint32(appendString(nil, "disk"), 1<<31), repErrInvalid},
		{optInfo, make([]byte, maxOptionData+1), repErrTooBig},
		{optAbort, nil, repAck},
	} {
		w.wantReply(tc.opt, tc.data, tc.want)
	}
	w.wantEnd()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened == 0 || s.open != 0 {
		t.Errorf("%d sessions opened, %d open still", s.opened, s.open)
	}
}

func TestExportNameIsServedToOldClients(t *testing.T) {
	for flags, size := range map[uint32]int{1: 134, 3: 10} {
		socket, _, _ := exported(t, sample(sampleSize))
		w := connect(t, "unix", socket)
		w.greet(flags)
		w.send(appendOption(nil, optExportName, []byte("disk")))
		b := w.receive(size)
		if binary.BigEndian.Uint64(b) != sampleSize || binary.BigEndian.Uint16(b[8:])&(flagHasFlags|flagReadOnly|flagSendDF) != flagHasFlags {
			t.Errorf("flags %d: % x", flags, b[:10])
		}
		w.request(cmdRead, 7, 0, 100)
		w.wantSimple(7, errnoNone)
		if !bytes.Equal(w.receive(100), sample(sampleSize)[:100]) {
			t.Error("wrong data")
		}
		w.request(cmdDisc, 0, 0, 0)
		w.wantEnd()
	}
}

// Contexts count for the export that they were chosen for, and the last choice counts.
func TestMetaContextsBelongToTheirExport(t *testing.T) {
	socket, _, _ := exported(t, sample(sampleSize))
	for name, tc := range map[string]struct {
		choices [][]byte
		want    errno
	}{
		"the same":           {[][]byte{metaRequest("disk", ContextAllocation)}, errnoNone},
		"another export":     {[][]byte{metaRequest("frozen", ContextAllocation)}, errnoInval},
		"taken back":         {[][]byte{metaRequest("disk", ContextAllocation), metaRequest("disk")}, errnoInval},
		"lost by a mistake":  {[][]byte{metaRequest("disk", ContextAllocation), {1}}, errnoInval},
		"none of the server": {[][]byte{metaRequest("disk", "qemu:dirty-bitmap:x")}, errnoInval},
	} {
		t.Run(name, func(t *testing.T) {
			w := connect(t, "unix", socket)
			w.greet(3)
			w.wantReply(optStructuredReply, nil, repAck)
			for _, data := range tc.choices {
				w.ask(optSetMetaContext, data)
			}
			w.wantReply(optGo, infoRequest("disk"), repAck)
			w.request(cmdBlockStatus, 1, 0, 4096)
			b := w.receive(chunkSize)
			kind, length := chunkKind(binary.BigEndian.Uint16(b[6:])), binary.BigEndian.Uint32(b[16:])
			body := w.receive(int(length))
			switch {
			case tc.want == errnoNone && kind != chunkStatus:
				t.Errorf("kind %d: % x", kind, body)
			case tc.want != errnoNone && (kind != chunkError || errno(binary.BigEndian.Uint32(body)) != tc.want):
				t.Errorf("kind %d: % x", kind, body)
			}
		})
	}
}

func TestBrokenNegotiationEndsTheConnection(t *testing.T) {
	socket, _, _ := exported(t, sample(sampleSize))
	for name, say := range map[string]func(w *wire){
		"unknown client flags": func(w *wire) { w.greet(8 | 3) },
		"not fixed newstyle":   func(w *wire) { w.greet(0) },
		"wrong magic": func(w *wire) {
			w.greet(3)
			w.send(make([]byte, optionSize))
		},
		"unknown export by name": func(w *wire) {
			w.greet(3)
			w.send(appendOption(nil, optExportName, []byte("unknown")))
		},
		"long export name": func(w *wire) {
			w.greet(3)
			w.send(appendOption(nil, optExportName, make([]byte, maxString+1)))
		},
		"huge export name": func(w *wire) {
			w.greet(3)
			w.send(appendOption(nil, optExportName, make([]byte, maxOptionData+1))[:optionSize])
		},
		"options without end": func(w *wire) {
			w.greet(3)
			for range maxOptions {
				w.wantReply(99, nil, repErrUnsup)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := connect(t, "unix", socket)
			say(w)
			w.wantEnd()
		})
	}
}

func TestNothingButTLSIsAnsweredBeforeTLS(t *testing.T) {
	address, _, _, s := secured(t, sample(sampleSize))
	w := connect(t, "tcp", address)
	w.greet(3)
	for _, opt := range []option{optList, optGo, optInfo, optStructuredReply, optSetMetaContext, optListMetaContext, 99} {
		w.wantReply(opt, infoRequest("disk"), repErrTLSReqd)
	}
	w.wantReply(optAbort, nil, repAck)
	w.wantEnd()

	w = connect(t, "tcp", address)
	w.greet(3)
	w.send(appendOption(nil, optExportName, []byte("disk")))
	w.wantEnd()

	// What comes in clear behind STARTTLS must not count as said inside the session.
	w = connect(t, "tcp", address)
	w.greet(3)
	w.send(append(appendOption(nil, optStartTLS, nil), appendOption(nil, optList, nil)...))
	w.wantEnd()
	s.wantNoOpens(t)
}

func TestSilentClientsAreDropped(t *testing.T) {
	for name, say := range map[string]func(w *wire){
		"at once":       func(*wire) {},
		"after a while": func(w *wire) { w.greet(3); w.wantReply(optInfo, infoRequest("disk"), repAck) },
		"in an option":  func(w *wire) { w.greet(3); w.send(appendOption(nil, optInfo, make([]byte, 1<<20))[:1000]) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf()
			s.add("disk", newMemory(t, 4096), 4096, false)
			socket := startServer(t, "unix", s, func(cfg *ServerConfig) { cfg.HandshakeTimeout = 100 * time.Millisecond })
			w := connect(t, "unix", socket)
			say(w)
			for {
				if _, err := w.Read(make([]byte, 100)); err != nil {
					break
				}
			}
		})
	}
}

// The time limit is for the option phase: afterwards a client may be silent for as long as it likes.
func TestSilenceIsNoFaultInTheTransmissionPhase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.add("disk", newMemory(t, 4096), 4096, false)
		conn := startPipe(t, s, nil)
		w := &wire{tb: t, Conn: conn}
		w.greet(3)
		w.wantReply(optGo, infoRequest("disk"), repAck)
		<-time.After(24 * time.Hour) // by the bubble's clock
		w.request(cmdFlush, 1, 0, 0)
		w.wantSimple(1, errnoNone)
		w.request(cmdDisc, 0, 0, 0)
		w.wantEnd()
	})
}

func TestTooManyConnectionsAreRefused(t *testing.T) {
	s := newShelf()
	s.add("disk", newMemory(t, 4096), 4096, false)
	socket := startServer(t, "unix", s, func(cfg *ServerConfig) { cfg.MaxConnections = 2 })
	first, second := attach(t, "unix", socket, "disk"), attach(t, "unix", socket, "disk")
	connect(t, "unix", socket).wantEnd()
	second.request(cmdFlush, 1, 0, 0)
	second.wantSimple(1, errnoNone)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is room again", func() bool {
		c, err := Dial(t.Context(), ClientConfig{Network: "unix", Address: socket, Export: "disk"})
		return err == nil && c.Close() == nil
	})
}

func TestNegativeSizesAreRefused(t *testing.T) {
	s := newShelf()
	s.add("disk", newMemory(t, 4096), -1, false)
	_, err := Dial(t.Context(), ClientConfig{Network: "unix", Address: startServer(t, "unix", s, nil), Export: "disk"})
	wantCode(t, err, drover.Internal)
}
