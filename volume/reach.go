package volume

import (
	"context"

	"drover"
	"drover/internal/fleetca"
	"drover/nbd"
)

// noExport is a name that no layer can have.
const noExport = "@"

// Reach proves that this host can read from another one: it connects to the address of that host's storage daemon, and goes as far as the point
// at which an export is named. Both certificates count. It returns Unavailable or Denied, and changes nothing.
func Reach(ctx context.Context, tlsDir string, peer drover.HostID, address string) error {
	cfg, err := fleetca.ClientConfig(tlsDir, peer)
	if err != nil {
		return err
	}
	conn, err := nbd.Dial(ctx, nbd.ClientConfig{Network: "tcp", Address: address, Export: noExport, TLS: cfg, DialTimeout: dialTimeout})
	switch {
	case err == nil:
		return conn.Close()
	case drover.Is(err, drover.NotFound): // the daemon itself said so
		return nil
	}
	return err
}
