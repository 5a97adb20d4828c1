package nbd

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"

	"drover"
)

// maxOptionReplies bounds the replies to one option.
const maxOptionReplies = 1024

// Dial connects to an export. Errors: Unavailable when the server cannot be reached or does not speak as it should, Denied when one side's
// certificate does not please the other, and what the server says of the export, with its text: NotFound, Denied, Conflict (a stale
// epoch) and others of an Opener. ctx bounds the dialling only.
func Dial(ctx context.Context, cfg ClientConfig) (*Client, error) {
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = defaultDialTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.DialTimeout)
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, cfg.Network, cfg.Address)
	if err != nil {
		code := drover.Unavailable
		if errors.Is(ctx.Err(), context.Canceled) {
			code = drover.Canceled
		}
		return nil, drover.Errorf(code, "cannot connect to NBD server %s: %w", cfg.Address, err)
	}
	if err := tuneSocket(raw); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return open(ctx, raw, cfg)
}

// open negotiates over a fresh connection and starts the client on it.
func open(ctx context.Context, raw net.Conn, cfg ClientConfig) (*Client, error) {
	// What waits for the server is ended by closing the socket.
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		raw.Close() //nolint:errcheck // the error to report is ctx's
	})
	d := dialing{cfg: cfg, nc: raw, out: &plainSender{conn: raw}, br: bufio.NewReaderSize(raw, readBuffer)}
	export, err := d.run(ctx)
	if !stop() {
		<-closed
		if err == nil {
			err = ctx.Err()
		}
	}
	if err != nil {
		raw.Close() //nolint:errcheck // the error to report is err
		return nil, d.explain(ctx, err)
	}
	c := &Client{
		cfg: cfg, raw: raw, nc: d.nc, out: d.out, export: export,
		free:   make(chan *call, clientDepth),
		failed: make(chan struct{}),
		done:   make(chan struct{}),
	}
	if export.compressed {
		if c.decoder, err = newDecoder(); err != nil {
			return nil, errors.Join(err, raw.Close())
		}
	}
	for i := range c.calls {
		c.calls[i].init(uint32(i))
		c.free <- &c.calls[i]
	}
	go c.receive(d.br) // Close waits for it
	return c, nil
}

// dialing is the client's side of the option phase.
type dialing struct {
	cfg ClientConfig
	nc  net.Conn
	out sender
	br  *bufio.Reader
}

func (d *dialing) run(ctx context.Context) (exportInfo, error) {
	var e exportInfo
	if err := d.greet(); err != nil {
		return e, err
	}
	if d.cfg.TLS != nil {
		if err := d.startTLS(ctx); err != nil {
			return e, err
		}
	}
	switch _, err := d.ask(optStructuredReply, nil); {
	case err == nil:
		e.structured = true
	case !drover.Is(err, drover.Precondition): // the server does not know them
		return e, err
	}
	wanted := d.cfg.MetaContexts
	if d.cfg.Compress {
		wanted = append(slices.Clone(wanted), contextCompressed)
	}
	if e.structured && len(wanted) > 0 {
		var err error
		if e.contexts, err = d.chooseContexts(wanted); err != nil {
			return e, err
		}
		_, e.compressed = e.contexts[contextCompressed]
		delete(e.contexts, contextCompressed)
	}
	return d.goExport(e)
}

func (d *dialing) greet() error {
	var b [greetingSize]byte
	if _, err := io.ReadFull(d.br, b[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(b[:]) != magicInit || binary.BigEndian.Uint64(b[8:]) != magicOption {
		return drover.Errorf(drover.Unavailable, "the server greets with % x, which is not NBD's newstyle negotiation", b)
	}
	flags := binary.BigEndian.Uint16(b[16:])
	if flags&handshakeFixedNewstyle == 0 {
		return drover.Errorf(drover.Unavailable, "the server does not offer fixed newstyle negotiation")
	}
	return d.write(binary.BigEndian.AppendUint32(nil, uint32(flags&(handshakeFixedNewstyle|handshakeNoZeroes))))
}

func (d *dialing) startTLS(ctx context.Context) error {
	if _, err := d.ask(optStartTLS, nil); err != nil {
		return err
	}
	if d.br.Buffered() != 0 {
		return drover.Errorf(drover.Unavailable, "the server sent %d bytes before the TLS session", d.br.Buffered())
	}
	cfg := d.cfg.TLS.Clone()
	cfg.DynamicRecordSizingDisabled = true // bulk data: always full records
	if cfg.ServerName == "" {
		host, _, err := net.SplitHostPort(d.cfg.Address)
		if err != nil {
			return drover.Errorf(drover.Invalid, "the address %q names no host to check the certificate against: set ServerName", d.cfg.Address)
		}
		cfg.ServerName = host
	}
	cork := newCorkedConn(d.nc)
	session := tls.Client(cork, cfg)
	if err := session.HandshakeContext(ctx); err != nil {
		return err
	}
	cork.cork()
	d.nc, d.br = session, bufio.NewReaderSize(session, readBuffer)
	d.out = &tlsSender{session: session, cork: cork, record: make([]byte, 0, recordSize)}
	return nil
}

// chooseContexts returns those of the wanted contexts that the server has.
func (d *dialing) chooseContexts(wanted []string) (map[string]uint32, error) {
	data := appendString(nil, d.cfg.Export)
	data = binary.BigEndian.AppendUint32(data, uint32(len(wanted)))
	for _, name := range wanted {
		data = appendString(data, name)
	}
	replies, err := d.ask(optSetMetaContext, data)
	if err != nil && !drover.Is(err, drover.Precondition) {
		return nil, err
	}
	contexts := make(map[string]uint32)
	for _, r := range replies {
		id, name, ok := cutUint32(r.data)
		if r.kind != repMetaContext || !ok || !slices.Contains(wanted, string(name)) {
			return nil, drover.Errorf(drover.Unavailable, "the server's reply to %s is malformed", optSetMetaContext)
		}
		contexts[string(name)] = id
	}
	return contexts, nil
}

// goExport opens the export and begins the transmission phase.
func (d *dialing) goExport(e exportInfo) (exportInfo, error) {
	data := appendString(nil, d.cfg.Export)
	data = binary.BigEndian.AppendUint16(data, 1)
	data = binary.BigEndian.AppendUint16(data, infoBlockSize)
	replies, err := d.ask(optGo, data)
	if err != nil {
		return e, err
	}
	e.size, e.maxBlock = -1, int(maxBlock)
	for _, r := range replies {
		if r.kind != repInfo || len(r.data) < 2 {
			return e, drover.Errorf(drover.Unavailable, "the server's reply to %s is malformed", optGo)
		}
		switch kind, info := binary.BigEndian.Uint16(r.data), r.data[2:]; {
		case kind == infoExport && len(info) == 10:
			e.size = int64(binary.BigEndian.Uint64(info))
			e.flags = binary.BigEndian.Uint16(info[8:])
		case kind == infoBlockSize && len(info) == 12:
			e.maxBlock = int(min(binary.BigEndian.Uint32(info[8:]), maxBlock))
		case kind == infoExport || kind == infoBlockSize:
			return e, drover.Errorf(drover.Unavailable, "the server's reply to %s has information %d of %d bytes", optGo, kind, len(info))
		}
	}
	if e.size < 0 || e.flags&flagHasFlags == 0 || e.maxBlock < 512 {
		return e, drover.Errorf(drover.Unavailable, "the server describes an export of %d bytes with flags %#x and blocks of up to %d bytes",
			e.size, e.flags, e.maxBlock)
	}
	return e, nil
}

// replyToOption is one reply that is neither the last nor an error.
type replyToOption struct {
	kind optionReply
	data []byte
}

// ask sends an option and collects the replies up to the acknowledgement. An error reply becomes an error with the server's text.
func (d *dialing) ask(opt option, data []byte) ([]replyToOption, error) {
	if err := d.write(appendOption(nil, opt, data)); err != nil {
		if _, said := d.br.Peek(1); isAlert(said) {
			err = said // the server refused our certificate after its side of the handshake was done, and hung up
		}
		return nil, err
	}
	var replies []replyToOption
	for range maxOptionReplies {
		var head [optionReplySize]byte
		if _, err := io.ReadFull(d.br, head[:]); err != nil {
			return nil, err
		}
		to, kind := option(binary.BigEndian.Uint32(head[8:])), optionReply(binary.BigEndian.Uint32(head[12:]))
		size := binary.BigEndian.Uint32(head[16:])
		if binary.BigEndian.Uint64(head[:]) != magicOptionReply || to != opt || size > maxOptionData {
			return nil, drover.Errorf(drover.Unavailable, "the server's reply to %s begins with % x", opt, head)
		}
		data := make([]byte, size)
		if _, err := io.ReadFull(d.br, data); err != nil {
			return nil, err
		}
		switch {
		case kind == repAck:
			return replies, nil
		case kind&repError != 0:
			code, text := parseOptionError(kind, string(data))
			return nil, drover.Errorf(code, "%s", text)
		}
		replies = append(replies, replyToOption{kind: kind, data: data})
	}
	return nil, drover.Errorf(drover.Unavailable, "the server sent over %d replies to %s", maxOptionReplies, opt)
}

func (d *dialing) write(b []byte) error { return d.out.send([][]byte{b}) }

// explain makes an error for the caller of Dial.
func (d *dialing) explain(ctx context.Context, err error) error {
	code := drover.Unavailable
	var said *drover.Error
	var unverified *tls.CertificateVerificationError
	var wrongHost x509.HostnameError
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
		if errors.Is(err, context.Canceled) {
			code = drover.Canceled
		}
	case errors.As(err, &said):
		code = said.Code
	case isAlert(err), errors.As(err, &unverified), errors.As(err, &wrongHost):
		code = drover.Denied
	}
	return drover.Errorf(code, "cannot open NBD export %q at %s: %w", d.cfg.Export, d.cfg.Address, err)
}

// isAlert tells whether the other side of a TLS session said what it did not like; mostly that is our certificate.
func isAlert(err error) bool {
	var alert *net.OpError
	return errors.As(err, &alert) && alert.Op == "remote error"
}

// Ping connects to a server, checks both certificates, and asks it something that every server answers. It opens no export: it tells whether
// the server is there. Errors are those of Dial.
func Ping(ctx context.Context, cfg ClientConfig) error {
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = defaultDialTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.DialTimeout)
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, cfg.Network, cfg.Address)
	if err != nil {
		return drover.Errorf(drover.Unavailable, "cannot connect to NBD server %s: %w", cfg.Address, err)
	}
	stop := context.AfterFunc(ctx, func() {
		raw.Close() //nolint:errcheck // the error to report is ctx's
	})
	defer stop()
	d := dialing{cfg: cfg, nc: raw, out: &plainSender{conn: raw}, br: bufio.NewReaderSize(raw, readBuffer)}
	err = d.greet()
	if err == nil && cfg.TLS != nil {
		err = d.startTLS(ctx)
	}
	if err == nil {
		if _, err = d.ask(optStructuredReply, nil); drover.Is(err, drover.Precondition) {
			err = nil // it does not know them, and said so
		}
	}
	if err != nil {
		err = d.explain(ctx, err)
	} else {
		err = d.write(appendOption(nil, optAbort, nil))
	}
	raw.Close() //nolint:errcheck // the error to report is err
	return err
}
