package natsbus

import (
	"context"
	"encoding/json"

	"drover"
	"drover/internal/fleetca"
)

// secretsRequest is the request for the secrets of a machine. It goes to the control hosts, whichever of them is free.
const secretsRequest = "secrets"

// secretsInfo says what sealed secrets are: for one host, for one machine.
func secretsInfo(r drover.SecretsRequest) string {
	return "drover secrets of machine " + string(r.Machine) + " for host " + string(r.Host)
}

// signedSecrets is what a control host signs: the sealed secrets, and what they are.
func signedSecrets(r drover.SecretsRequest, sealed []byte) []byte {
	return append([]byte(secretsInfo(r)+"\x00"), sealed...)
}

// HostSecrets gets the secrets of machines for one host. Nobody else on the bus can read them, and only a control host's word counts.
type HostSecrets struct {
	conn *Conn
	host drover.HostID
	dir  string
}

// NewHostSecrets returns the secrets for a host whose certificates are in the directory.
func NewHostSecrets(conn *Conn, host drover.HostID, tlsDir string) *HostSecrets {
	return &HostSecrets{conn: conn, host: host, dir: tlsDir}
}

// Secrets asks for the secrets of a machine. Conflict when the fleet does not have the host run it; Unavailable when no control host answers.
func (h *HostSecrets) Secrets(ctx context.Context, id drover.MachineID) (drover.SecretValues, error) {
	none := drover.SecretValues{}
	if !h.conn.Up() {
		return none, drover.Errorf(drover.Unavailable, "no control host can be asked for the secrets of machine %q: there is no connection to the bus", id)
	}
	der, err := fleetca.HostCertificate(h.dir)
	if err != nil {
		return none, err
	}
	req := drover.SecretsRequest{Machine: id, Host: h.host, Certificate: der}
	data, err := json.Marshal(req)
	if err != nil {
		return none, drover.Errorf(drover.Internal, "cannot ask for the secrets of machine %q: %w", id, err)
	}
	ctx, cancel := bounded(ctx, keyTimeout)
	defer cancel()
	body, err := h.conn.askAt(ctx, controlSubject(secretsRequest), "control", secretsRequest, data)
	if drover.Is(err, drover.Unavailable) {
		return none, drover.Errorf(drover.Unavailable, "no control host hands out the secrets of machine %q: %w", id, err)
	}
	if err != nil {
		return none, err
	}
	var answer drover.SealedKey
	if err := json.Unmarshal(body, &answer); err != nil {
		return none, drover.Errorf(drover.Internal, "the answer to the request for the secrets of machine %q cannot be read: %w", id, err)
	}
	if _, err := fleetca.VerifyControl(h.dir, answer.Certificate, signedSecrets(req, answer.Sealed), answer.Signature); err != nil {
		return none, drover.Errorf(drover.Internal, "the secrets of machine %q do not come from a control host: %w", id, err)
	}
	plain, err := fleetca.OpenAsHost(h.dir, secretsInfo(req), answer.Sealed)
	if err != nil {
		return none, drover.Errorf(drover.Unavailable, "the secrets of machine %q cannot be opened: %w", id, err) // the certificate was issued again just now
	}
	defer clear(plain)
	return drover.DecodeSecretValues(plain)
}

// SealSecrets makes the answer to a request, as the control host whose certificates are in the directory. Denied unless the request's certificate is that
// of the host that it names, which the caller has found to be entitled to the secrets.
func SealSecrets(tlsDir string, req drover.SecretsRequest, v drover.SecretValues) (drover.SealedKey, error) {
	cert, err := fleetca.CheckHost(tlsDir, req.Certificate, req.Host)
	if err != nil {
		return drover.SealedKey{}, err
	}
	own, err := fleetca.ControlCertificate(tlsDir)
	if err != nil {
		return drover.SealedKey{}, err
	}
	plain, err := v.Encode()
	if err != nil {
		return drover.SealedKey{}, drover.Errorf(drover.Internal, "the secrets of machine %q cannot be encoded", req.Machine)
	}
	defer clear(plain)
	sealed, err := fleetca.Seal(cert, secretsInfo(req), plain)
	if err != nil {
		return drover.SealedKey{}, err
	}
	signature, err := fleetca.SignAsControl(tlsDir, signedSecrets(req, sealed))
	return drover.SealedKey{Sealed: sealed, Certificate: own, Signature: signature}, err
}

// ServeSecrets answers requests for secrets until ctx ends. Of several control hosts one gets each request.
func ServeSecrets(ctx context.Context, conn *Conn, handler func(ctx context.Context, req drover.SecretsRequest) (drover.SealedKey, error)) error {
	return conn.serveAt(ctx, controlSubject(secretsRequest), "control", "control", secretsRequest, func(ctx context.Context, data []byte) (any, error) {
		var req drover.SecretsRequest
		if err := json.Unmarshal(data, &req); err != nil {
			return nil, drover.Errorf(drover.Invalid, "the request for secrets cannot be read: %w", err)
		}
		return handler(ctx, req)
	})
}
