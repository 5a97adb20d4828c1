package natsbus

import (
	"context"

	"drover"
)

// secretsRequest is the request for the secrets of a machine.
const secretsRequest = "secrets"

// sealedSecrets are the secrets of one machine, for one host.
func sealedSecrets(r drover.SecretsRequest) sealedFor {
	return sealedFor{secretsRequest, "the secrets of machine " + string(r.Machine),
		"drover secrets of machine " + string(r.Machine) + " for host " + string(r.Host)}
}

// HostSecrets gets the secrets of machines for one host.
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
	req := drover.SecretsRequest{Machine: id, Host: h.host}
	plain, err := sealedSecrets(req).ask(ctx, h.conn, h.dir, func(certificate []byte) any { req.Certificate = certificate; return req })
	if err != nil {
		return drover.SecretValues{}, err
	}
	defer clear(plain)
	return drover.DecodeSecretValues(plain)
}

// SealSecrets makes the answer to a request, as the control host whose certificates are in the directory. Denied unless the request's certificate is that
// of the host that it names, which the caller has found to be entitled to the secrets.
func SealSecrets(tlsDir string, req drover.SecretsRequest, v drover.SecretValues) (drover.SealedKey, error) {
	plain, err := v.Encode()
	if err != nil {
		return drover.SealedKey{}, drover.Errorf(drover.Internal, "the secrets of machine %q cannot be encoded", req.Machine)
	}
	defer clear(plain)
	return sealedSecrets(req).seal(tlsDir, req.Certificate, req.Host, plain)
}

// ServeSecrets answers requests for secrets until ctx ends.
func ServeSecrets(ctx context.Context, conn *Conn, handler func(ctx context.Context, req drover.SecretsRequest) (drover.SealedKey, error)) error {
	return serveSealed(ctx, conn, secretsRequest, handler)
}
