package natsbus

import (
	"context"
	"time"

	"drover"
)

// keyRequest is the request for the key of a volume.
const keyRequest = "key"

// keyTimeout bounds the wait for what a control host hands out.
const keyTimeout = 10 * time.Second

// sealedKey is a key for one host, under one ID.
func sealedKey(r drover.KeyRequest) sealedFor {
	return sealedFor{keyRequest, "key " + string(r.Key), "drover volume key " + string(r.Key) + " for host " + string(r.Host)}
}

// HostKeys gets keys of volumes for one host.
type HostKeys struct {
	conn *Conn
	host drover.HostID
	dir  string
}

// NewHostKeys returns the keys for a host whose certificates are in the directory.
func NewHostKeys(conn *Conn, host drover.HostID, tlsDir string) *HostKeys {
	return &HostKeys{conn: conn, host: host, dir: tlsDir}
}

// Key asks for a key. Conflict when the fleet does not have the host run a volume of that key; Unavailable when no control host answers.
func (k *HostKeys) Key(ctx context.Context, id drover.KeyID) ([]byte, error) {
	req := drover.KeyRequest{Key: id, Host: k.host}
	return sealedKey(req).ask(ctx, k.conn, k.dir, func(certificate []byte) any { req.Certificate = certificate; return req })
}

// SealKey makes the answer to a request, as the control host whose certificates are in the directory. Denied unless the request's certificate is that of
// the host that it names, which the caller has found to be entitled to the key.
func SealKey(tlsDir string, req drover.KeyRequest, secret []byte) (drover.SealedKey, error) {
	return sealedKey(req).seal(tlsDir, req.Certificate, req.Host, secret)
}

// ServeKeys answers requests for keys until ctx ends.
func ServeKeys(ctx context.Context, conn *Conn, handler func(ctx context.Context, req drover.KeyRequest) (drover.SealedKey, error)) error {
	return serveSealed(ctx, conn, keyRequest, handler)
}
