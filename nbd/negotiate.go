package nbd

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"drover"
)

// Bounds of the option phase, beside its time.
const (
	maxOptionData = 64 << 10
	maxOptions    = 1024
)

// negotiation is the server's side of the option phase (section "Fixed newstyle negotiation"): it ends with an open export, or with nothing.
type negotiation struct {
	conn   *conn
	br     *bufio.Reader
	opener Opener
	tls    *tls.Config // nil when there is none to offer, or the session is made

	noZeroes   bool
	structured bool
	// session is the export that an option named last, kept open because the next option mostly names it again.
	session *Session
	name    string
	// contexts were chosen for the export of the name contextsOf.
	contexts   []metaContext
	contextsOf string
	compressed bool // contextCompressed was among them
}

// agreement is what the option phase ended with.
type agreement struct {
	session    *Session
	structured bool
	contexts   []metaContext
	compressed bool
}

// run talks until the client has an export or goes. Then the session is the caller's, to be closed. Without an error and an agreement
// the client took its leave.
func (n *negotiation) run(ctx context.Context) (agreed *agreement, err error) {
	defer func() {
		if agreed == nil {
			n.closeSession()
		}
	}()
	if err := n.greet(); err != nil {
		return nil, err
	}
	for range maxOptions {
		opt, data, err := n.readOption()
		if err != nil {
			return nil, err
		}
		done, err := n.answer(ctx, opt, data)
		if errors.Is(err, errDisconnect) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if done {
			agreed = &agreement{session: n.session, structured: n.structured}
			if n.structured && n.contextsOf == n.name {
				agreed.contexts, agreed.compressed = n.contexts, n.compressed
			}
			return agreed, nil
		}
	}
	return nil, drover.Errorf(drover.Invalid, "the client sent %d options without choosing an export", maxOptions)
}

func (n *negotiation) greet() error {
	b := binary.BigEndian.AppendUint64(nil, magicInit)
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint16(b, handshakeFixedNewstyle|handshakeNoZeroes)
	if err := n.write(b); err != nil {
		return err
	}
	var answer [4]byte
	if _, err := io.ReadFull(n.br, answer[:]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(answer[:])
	if flags&^uint32(handshakeFixedNewstyle|handshakeNoZeroes) != 0 || flags&uint32(handshakeFixedNewstyle) == 0 {
		return drover.Errorf(drover.Invalid, "the client's flags %#x are not those of fixed newstyle negotiation", flags)
	}
	n.noZeroes = flags&uint32(handshakeNoZeroes) != 0
	return nil
}

// readOption reads one option. One that is too long is refused and skipped.
func (n *negotiation) readOption() (option, []byte, error) {
	for {
		var head [optionSize]byte
		if _, err := io.ReadFull(n.br, head[:]); err != nil {
			return 0, nil, err
		}
		if magic := binary.BigEndian.Uint64(head[:]); magic != magicOption {
			return 0, nil, drover.Errorf(drover.Invalid, "the client's option begins with %#x", magic)
		}
		opt := option(binary.BigEndian.Uint32(head[8:]))
		size := binary.BigEndian.Uint32(head[12:])
		if size <= maxOptionData {
			data := make([]byte, size)
			_, err := io.ReadFull(n.br, data)
			return opt, data, err
		}
		if opt == optExportName {
			return 0, nil, drover.Errorf(drover.Invalid, "the client's export name has %d bytes; %d are allowed", size, maxString)
		}
		if _, err := io.CopyN(io.Discard, n.br, int64(size)); err != nil {
			return 0, nil, err
		}
		if err := n.reply(opt, repErrTooBig, fmt.Appendf(nil, "%d bytes of data; %d are allowed", size, maxOptionData)); err != nil {
			return 0, nil, err
		}
	}
}

// answer does what one option asks for. It reports true when the transmission phase begins.
func (n *negotiation) answer(ctx context.Context, opt option, data []byte) (bool, error) {
	if n.tls != nil && opt != optStartTLS && opt != optAbort {
		if opt == optExportName { // it has no error reply
			return false, drover.Errorf(drover.Denied, "the client asked for an export without TLS")
		}
		return false, n.reply(opt, repErrTLSReqd, []byte("this server answers over TLS only"))
	}
	switch opt {
	case optAbort:
		if err := n.reply(opt, repAck, nil); err != nil {
			return false, err
		}
		return false, errDisconnect
	case optStartTLS:
		return false, n.startTLS(ctx, data)
	case optStructuredReply:
		if len(data) != 0 {
			return false, n.refuse(opt, "it has no data")
		}
		n.structured = true
		return false, n.reply(opt, repAck, nil)
	case optList:
		return false, n.list(ctx, data)
	case optExportName:
		return true, n.exportName(ctx, string(data))
	case optInfo, optGo:
		return n.describe(ctx, opt, data)
	case optSetMetaContext, optListMetaContext:
		return false, n.metaContext(ctx, opt, data)
	default:
		return false, n.reply(opt, repErrUnsup, fmt.Appendf(nil, "%s is not known here", opt))
	}
}

func (n *negotiation) startTLS(ctx context.Context, data []byte) error {
	switch {
	case len(data) != 0:
		return n.refuse(optStartTLS, "it has no data")
	case n.conn.peer.TLS != nil:
		return n.refuse(optStartTLS, "the TLS session is there already")
	case n.tls == nil:
		return n.reply(optStartTLS, repErrPolicy, []byte("this server offers no TLS"))
	case n.br.Buffered() != 0:
		// It would be taken for what was said inside the session.
		return drover.Errorf(drover.Invalid, "the client sent %d bytes after NBD_OPT_STARTTLS without waiting for the answer", n.br.Buffered())
	}
	if err := n.reply(optStartTLS, repAck, nil); err != nil {
		return err
	}
	if err := n.conn.startTLS(ctx, n.tls); err != nil {
		return err
	}
	n.tls = nil
	n.br = bufio.NewReaderSize(n.conn.nc, 4<<10)
	return nil
}

func (n *negotiation) list(ctx context.Context, data []byte) error {
	if len(data) != 0 {
		return n.refuse(optList, "it has no data")
	}
	var b []byte
	for _, name := range n.opener.List(ctx, n.conn.peer) {
		if len(name) <= maxString {
			b = appendOptionReply(b, optList, repServer, appendString(nil, name))
		}
	}
	return n.write(appendOptionReply(b, optList, repAck, nil))
}

// exportName answers NBD_OPT_EXPORT_NAME, which has no error reply: the connection ends instead.
func (n *negotiation) exportName(ctx context.Context, name string) error {
	if len(name) > maxString {
		return drover.Errorf(drover.Invalid, "the client's export name has %d bytes; %d are allowed", len(name), maxString)
	}
	if err := n.open(ctx, name); err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(n.session.Info.Size))
	b = binary.BigEndian.AppendUint16(b, n.flags())
	if !n.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	return n.write(b)
}

// describe answers NBD_OPT_INFO and NBD_OPT_GO.
func (n *negotiation) describe(ctx context.Context, opt option, data []byte) (bool, error) {
	name, kinds, ok := parseInfoRequest(data)
	if !ok {
		return false, n.refuse(opt, "its data is malformed")
	}
	if err := n.open(ctx, name); err != nil {
		return false, n.replyError(opt, err)
	}
	info := binary.BigEndian.AppendUint16(nil, infoExport)
	info = binary.BigEndian.AppendUint64(info, uint64(n.session.Info.Size))
	info = binary.BigEndian.AppendUint16(info, n.flags())
	b := appendOptionReply(nil, opt, repInfo, info)
	for _, kind := range kinds {
		info := binary.BigEndian.AppendUint16(nil, kind)
		switch kind {
		case infoName:
			info = append(info, name...)
		case infoBlockSize:
			info = binary.BigEndian.AppendUint32(info, minBlock)
			info = binary.BigEndian.AppendUint32(info, preferredBlock)
			info = binary.BigEndian.AppendUint32(info, maxBlock)
		default:
			continue // a server need not know what it is asked for
		}
		b = appendOptionReply(b, opt, repInfo, info)
	}
	return opt == optGo, n.write(appendOptionReply(b, opt, repAck, nil))
}

// parseInfoRequest reads the data of NBD_OPT_INFO and NBD_OPT_GO. Of kinds asked for twice, one is kept.
func parseInfoRequest(data []byte) (name string, kinds []uint16, ok bool) {
	name, rest, ok := cutString(data)
	if !ok || len(rest) < 2 || len(rest) != 2+2*int(binary.BigEndian.Uint16(rest)) {
		return "", nil, false
	}
	seen := make(map[uint16]bool)
	for rest = rest[2:]; len(rest) > 0; rest = rest[2:] {
		kind := binary.BigEndian.Uint16(rest)
		if !seen[kind] {
			seen[kind] = true
			kinds = append(kinds, kind)
		}
	}
	return name, kinds, true
}

// flags says what the open export can do.
func (n *negotiation) flags() uint16 {
	f := flagHasFlags | flagCanMultiConn
	if n.structured {
		f |= flagSendDF
	}
	if n.session.Info.ReadOnly {
		return f | flagReadOnly
	}
	return f | flagSendFlush | flagSendFUA | flagSendTrim | flagSendWriteZeroes
}

// open makes the export of the name the open one.
func (n *negotiation) open(ctx context.Context, name string) error {
	if n.session != nil && n.name == name && !isClosed(n.session.Gone) {
		return nil
	}
	n.closeSession()
	session, err := n.opener.Open(ctx, name, n.conn.peer)
	if err != nil {
		n.conn.log.Info("NBD export refused", "export", name, "err", err)
		return err
	}
	if session.Info.Size < 0 {
		err := drover.Errorf(drover.Internal, "export %q has the size %d", name, session.Info.Size)
		n.session = session
		n.closeSession()
		return err
	}
	n.session, n.name = session, name
	return nil
}

func (n *negotiation) closeSession() {
	if n.session != nil && n.session.Close != nil {
		n.session.Close()
	}
	n.session, n.name = nil, ""
}

// refuse answers a malformed option.
func (n *negotiation) refuse(opt option, why string) error {
	return n.reply(opt, repErrInvalid, fmt.Appendf(nil, "%s: %s", opt, why))
}

// replyError answers an option with what the Opener said.
func (n *negotiation) replyError(opt option, err error) error {
	rep, text := optionError(err)
	return n.reply(opt, rep, []byte(text))
}

func (n *negotiation) reply(opt option, rep optionReply, data []byte) error {
	return n.write(appendOptionReply(nil, opt, rep, data))
}

func (n *negotiation) write(b []byte) error { return n.conn.out.send([][]byte{b}) }

// isClosed tells whether a channel that only ever gets closed is. Nil never is.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
