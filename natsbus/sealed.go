package natsbus

import (
	"context"
	"encoding/json"

	"drover"
	"drover/internal/fleetca"
)

// sealedFor is something that a control host hands out to one host alone: nobody else on the bus can read it, and only a control host's word counts.
type sealedFor struct {
	// request is what it is asked by, what is its name in errors, such as "key key_1".
	request, what string
	// info says what is sealed, and for whom: an answer to another request is none to this one.
	info string
}

// signed is what a control host signs: what is sealed, and what it is.
func (s sealedFor) signed(sealed []byte) []byte { return append([]byte(s.info+"\x00"), sealed...) }

// ask asks the control hosts, whichever of them is free, and opens the answer. form makes the request of the host's certificate.
func (s sealedFor) ask(ctx context.Context, conn *Conn, dir string, form func(certificate []byte) any) ([]byte, error) {
	if !conn.Up() {
		return nil, drover.Errorf(drover.Unavailable, "no control host can be asked for %s: there is no connection to the bus", s.what)
	}
	certificate, err := fleetca.HostCertificate(dir)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(form(certificate))
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot ask for %s: %w", s.what, err)
	}
	ctx, cancel := bounded(ctx, keyTimeout)
	defer cancel()
	body, err := conn.askAt(ctx, controlSubject(s.request), "control", s.request, data)
	if drover.Is(err, drover.Unavailable) {
		return nil, drover.Errorf(drover.Unavailable, "no control host hands out %s: %w", s.what, err)
	}
	if err != nil {
		return nil, err
	}
	var answer drover.SealedKey
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, drover.Errorf(drover.Internal, "the answer to the request for %s cannot be read: %w", s.what, err)
	}
	if _, err := fleetca.VerifyControl(dir, answer.Certificate, s.signed(answer.Sealed), answer.Signature); err != nil {
		return nil, drover.Errorf(drover.Internal, "what came for %s is not from a control host: %w", s.what, err)
	}
	plain, err := fleetca.OpenAsHost(dir, s.info, answer.Sealed)
	if err != nil {
		return nil, drover.Errorf(drover.Unavailable, "what came for %s cannot be opened: %w", s.what, err) // the certificate was issued again just now
	}
	return plain, nil
}

// seal makes the answer, as the control host whose certificates are in the directory. Denied unless the certificate is that of the host.
func (s sealedFor) seal(dir string, certificate []byte, host drover.HostID, plain []byte) (drover.SealedKey, error) {
	cert, err := fleetca.CheckHost(dir, certificate, host)
	if err != nil {
		return drover.SealedKey{}, err
	}
	own, err := fleetca.ControlCertificate(dir)
	if err != nil {
		return drover.SealedKey{}, err
	}
	sealed, err := fleetca.Seal(cert, s.info, plain)
	if err != nil {
		return drover.SealedKey{}, err
	}
	signature, err := fleetca.SignAsControl(dir, s.signed(sealed))
	return drover.SealedKey{Sealed: sealed, Certificate: own, Signature: signature}, err
}

// serveSealed answers requests until ctx ends. Of several control hosts one gets each request.
func serveSealed[R any](ctx context.Context, conn *Conn, request string, handler func(ctx context.Context, req R) (drover.SealedKey, error)) error {
	return conn.serveAt(ctx, controlSubject(request), "control", "control", request, func(ctx context.Context, data []byte) (any, error) {
		var req R
		if err := json.Unmarshal(data, &req); err != nil {
			return nil, drover.Errorf(drover.Invalid, "the request %q cannot be read: %w", request, err)
		}
		return handler(ctx, req)
	})
}
