package natsbus

import (
	"context"
	"encoding/json"
	"time"

	"drover"
	"drover/internal/fleetca"
)

// keyRequest is the request for the key of a volume. It goes to the control hosts, whichever of them is free.
const keyRequest = "key"

// keyTimeout bounds the wait for a key.
const keyTimeout = 10 * time.Second

// sealInfo says what a sealed key is: for one host, under one ID.
func sealInfo(r drover.KeyRequest) string {
	return "drover volume key " + string(r.Key) + " for host " + string(r.Host)
}

// signedKey is what a control host signs: the sealed key, and what it is.
func signedKey(r drover.KeyRequest, sealed []byte) []byte {
	return append([]byte(sealInfo(r)+"\x00"), sealed...)
}

// HostKeys gets keys of volumes for one host. Nobody else on the bus can read them, and only a control host's word counts.
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
	if !k.conn.Up() {
		return nil, drover.Errorf(drover.Unavailable, "no control host can be asked for key %s: there is no connection to the bus", id)
	}
	der, err := fleetca.HostCertificate(k.dir)
	if err != nil {
		return nil, err
	}
	req := drover.KeyRequest{Key: id, Host: k.host, Certificate: der}
	data, err := json.Marshal(req)
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot ask for key %s: %w", id, err)
	}
	ctx, cancel := bounded(ctx, keyTimeout)
	defer cancel()
	body, err := k.conn.askAt(ctx, controlSubject(keyRequest), "control", keyRequest, data)
	if drover.Is(err, drover.Unavailable) {
		return nil, drover.Errorf(drover.Unavailable, "no control host hands out key %s: %w", id, err)
	}
	if err != nil {
		return nil, err
	}
	var answer drover.SealedKey
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, drover.Errorf(drover.Internal, "the answer to the request for key %s cannot be read: %w", id, err)
	}
	if _, err := fleetca.VerifyControl(k.dir, answer.Certificate, signedKey(req, answer.Sealed), answer.Signature); err != nil {
		return nil, drover.Errorf(drover.Internal, "key %s does not come from a control host: %w", id, err)
	}
	secret, err := fleetca.OpenAsHost(k.dir, sealInfo(req), answer.Sealed)
	if err != nil {
		return nil, drover.Errorf(drover.Unavailable, "key %s cannot be opened: %w", id, err) // the certificate was issued again just now
	}
	return secret, nil
}

// SealKey makes the answer to a request, as the control host whose certificates are in the directory. Denied unless the request's certificate is that of
// the host that it names, which the caller has found to be entitled to the key.
func SealKey(tlsDir string, req drover.KeyRequest, secret []byte) (drover.SealedKey, error) {
	cert, err := fleetca.CheckHost(tlsDir, req.Certificate, req.Host)
	if err != nil {
		return drover.SealedKey{}, err
	}
	own, err := fleetca.ControlCertificate(tlsDir)
	if err != nil {
		return drover.SealedKey{}, err
	}
	sealed, err := fleetca.Seal(cert, sealInfo(req), secret)
	if err != nil {
		return drover.SealedKey{}, err
	}
	signature, err := fleetca.SignAsControl(tlsDir, signedKey(req, sealed))
	return drover.SealedKey{Sealed: sealed, Certificate: own, Signature: signature}, err
}

// ServeKeys answers requests for keys until ctx ends. Of several control hosts one gets each request.
func ServeKeys(ctx context.Context, conn *Conn, handler func(ctx context.Context, req drover.KeyRequest) (drover.SealedKey, error)) error {
	return conn.serveAt(ctx, controlSubject(keyRequest), "control", "control", keyRequest, func(ctx context.Context, data []byte) (any, error) {
		var req drover.KeyRequest
		if err := json.Unmarshal(data, &req); err != nil {
			return nil, drover.Errorf(drover.Invalid, "the request for a key cannot be read: %w", err)
		}
		return handler(ctx, req)
	})
}
