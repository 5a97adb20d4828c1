package volume

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"drover"
	"drover/internal/fleetca"
	"drover/nbd"
)

// opener finds layers for NBD connections.
type opener struct{ pool *pool }

var _ nbd.Opener = opener{}

func exportName(id drover.LayerID, epoch drover.Epoch) string { return fmt.Sprintf("%s@%d", id, epoch) }

// sinceName is the export name for a reader that has a copy of a layer below (drover.Export.Since).
func sinceName(e drover.Export) string {
	if e.Since == "" {
		return e.Name
	}
	return e.Name + ":" + string(e.Since)
}

// parseName takes an export name apart; epoch is 0 for a read-only one, and only that may say since which layer.
func parseName(name string) (id drover.LayerID, epoch drover.Epoch, since drover.LayerID, err error) {
	if before, after, ok := strings.Cut(name, ":"); ok {
		return drover.LayerID(before), 0, drover.LayerID(after), nil
	}
	before, text, writable := strings.Cut(name, "@")
	if !writable {
		return drover.LayerID(before), 0, "", nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return "", 0, "", drover.Errorf(drover.NotFound, "export name %q is none of LAYER, LAYER@EPOCH and LAYER:SINCE", name)
	}
	return drover.LayerID(before), drover.Epoch(n), "", nil
}

// peerHost is the host that the peer's verified certificate names; empty on a unix socket.
func peerHost(peer nbd.Peer) (drover.HostID, error) {
	if peer.TLS == nil {
		return "", nil
	}
	return fleetca.PeerHost(*peer.TLS)
}

// Open is nbd.Opener's.
func (o opener) Open(_ context.Context, name string, peer nbd.Peer) (*nbd.Session, error) {
	host, err := peerHost(peer)
	if err != nil {
		return nil, err
	}
	id, epoch, since, err := parseName(name)
	if err != nil {
		return nil, err
	}
	l, err := o.pool.find(id)
	if err != nil {
		return nil, err
	}
	m := l.meta()
	switch {
	case peer.TLS != nil && (epoch != 0 || !slices.Contains(m.Exports, host)):
		return nil, drover.Errorf(drover.Denied, "layer %s is not exported to host %s", id, host)
	case epoch != 0:
		if fence, err := o.pool.fences.epoch(m.Spec.Disk); err != nil {
			return nil, err
		} else if epoch < fence {
			return nil, staleEpoch(epoch, m.Spec.Disk, fence)
		}
	case m.parent() != nil && !m.Activated:
		return nil, drover.Errorf(drover.Precondition, "layer %s was never opened: until the switch its parent may still change", id)
	}
	var key *diskKey
	if peer.TLS == nil {
		if key, err = o.pool.keyFor(l); err != nil {
			return nil, err
		}
	}
	s, err := l.connectNBD(epoch, host, key, peer)
	if err != nil {
		return nil, err
	}
	s.since = since
	return &nbd.Session{
		Backend: s,
		Info: nbd.Info{Size: int64(m.Spec.Size), ReadOnly: epoch == 0,
			MetaContexts: []string{nbd.ContextAllocation, nbd.ContextPresent, nbd.ContextSum}},
		Gone:  s.gone,
		Close: s.Close,
	}, nil
}

// List is nbd.Opener's.
func (o opener) List(_ context.Context, peer nbd.Peer) []string {
	host, err := peerHost(peer)
	if err != nil {
		return nil
	}
	var names []string
	for _, l := range o.pool.all() {
		m := l.meta()
		if peer.TLS != nil {
			if slices.Contains(m.Exports, host) {
				names = append(names, string(l.id))
			}
			continue
		}
		if m.parent() != nil && !m.Activated {
			continue
		}
		if _, err := o.pool.keyFor(l); err != nil {
			continue // a client that lists names asks for each, and takes one refusal for the whole answer
		}
		names = append(names, string(l.id))
		l.mu.Lock()
		if l.writable != 0 {
			names = append(names, exportName(l.id, l.writable))
		}
		l.mu.Unlock()
	}
	slices.Sort(names)
	return names
}
