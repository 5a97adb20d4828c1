package sealedkeys

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"

	"drover"
	"drover/internal/fleetca"
)

// control is a control host whose certificate has been checked.
type control struct {
	cert        *x509.Certificate
	fingerprint []byte
}

func (c control) seal(key []byte, generation int, host drover.HostID) (Sealed, error) {
	sealed, err := fleetca.Seal(c.cert, sealInfo(generation, host), key)
	return Sealed{Fingerprint: c.fingerprint, Sealed: sealed}, err
}

// me returns this host.
func (s *Store) me() (control, error) {
	der, err := fleetca.ControlCertificate(s.cfg.TLSDir)
	if err != nil {
		return control{}, drover.AsError(fmt.Errorf("control host %q has no part in the keys of volumes: %w", s.cfg.Host, err))
	}
	return s.checked(der, s.cfg.Host)
}

// checked returns the host of a certificate, which must be that of a control host, and of the one that is meant.
func (s *Store) checked(der []byte, want drover.HostID) (control, error) {
	cert, host, err := fleetca.CheckControl(s.cfg.TLSDir, der)
	if err == nil && host != want {
		err = drover.Errorf(drover.Denied, "the certificate is that of control host %q, not of %q", host, want)
	}
	if err != nil {
		return control{}, err
	}
	return control{cert: cert, fingerprint: fleetca.Fingerprint(cert)}, nil
}

// controls returns the control hosts that a fleet key is to be sealed for. One whose certificate is not good is left out, and told of.
func (s *Store) controls(ctx context.Context) (map[drover.HostID]control, error) {
	me, err := s.me()
	if err != nil {
		return nil, err
	}
	out := map[drover.HostID]control{s.cfg.Host: me}
	keys, err := s.cfg.Records.Keys(ctx)
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		name, ok := strings.CutPrefix(key, controlPrefix)
		host := drover.HostID(name)
		if !ok || host == s.cfg.Host {
			continue
		}
		r, _, err := s.cfg.Records.Get(ctx, key)
		if drover.Is(err, drover.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if r.Control == nil {
			r.Control = &Control{}
		}
		c, err := s.checked(r.Control.Certificate, host)
		if err != nil {
			s.cfg.Log.Warn("no fleet key is sealed for a host that wants to be a control host", "host", string(host), "err", err)
			continue
		}
		out[host] = c
	}
	return out, nil
}

// Tend does what is to be done from time to time, on each control host: it makes this host known, hands the fleet key to control hosts that do
// not have it, and finishes a rotation that was cut.
func (s *Store) Tend(ctx context.Context) error {
	if err := s.join(ctx); err != nil {
		return err
	}
	f, rev, err := s.fleet(ctx)
	if err != nil {
		return err
	}
	hosts, err := s.controls(ctx)
	if err != nil {
		return err
	}
	next, changed, err := s.admit(f, hosts)
	if err != nil {
		return err
	}
	if changed {
		if _, err = s.cfg.Records.Update(ctx, fleetKey, Record{Fleet: next}, rev); err != nil {
			return err
		}
		f = next
	}
	if len(f.Generations) > 1 {
		return s.finish(ctx)
	}
	return nil
}

// join makes this host's certificate known.
func (s *Store) join(ctx context.Context) error {
	der, err := fleetca.ControlCertificate(s.cfg.TLSDir)
	if err != nil {
		return err
	}
	key, mine := controlPrefix+string(s.cfg.Host), Record{Control: &Control{Certificate: der}}
	r, rev, err := s.cfg.Records.Get(ctx, key)
	switch {
	case drover.Is(err, drover.NotFound):
		_, err = s.cfg.Records.Create(ctx, key, mine)
	case err == nil && (r.Control == nil || !bytes.Equal(r.Control.Certificate, der)):
		_, err = s.cfg.Records.Update(ctx, key, mine, rev)
	}
	return err
}

// admit seals the generations that this host has for the hosts that do not have them.
func (s *Store) admit(f *Fleet, hosts map[drover.HostID]control) (next *Fleet, changed bool, err error) {
	next = &Fleet{}
	for _, g := range f.Generations {
		g.Sealed = maps.Clone(g.Sealed)
		for host, c := range hosts {
			if bytes.Equal(g.Sealed[host].Fingerprint, c.fingerprint) {
				continue
			}
			key, err := s.open(g)
			if err != nil {
				return nil, false, err
			}
			if g.Sealed[host], err = c.seal(key, g.Number, host); err != nil {
				return nil, false, err
			}
			s.cfg.Log.Info("fleet key handed to a control host", "generation", g.Number, "to", string(host))
			changed = true
		}
		next.Generations = append(next.Generations, g)
	}
	return next, changed, nil
}

// Rotate makes a new fleet key, wraps every key with it, and forgets the old one. Cut anywhere, it is finished by Tend, or by another Rotate, which then makes
// no second new one.
func (s *Store) Rotate(ctx context.Context) error {
	f, rev, err := s.fleet(ctx)
	if err != nil {
		return err
	}
	if len(f.Generations) == 1 {
		if _, err := s.open(f.last()); err != nil { // or this host could not wrap anything anew
			return err
		}
		hosts, err := s.controls(ctx)
		if err != nil {
			return err
		}
		g, _, err := s.newGeneration(f.last().Number+1, hosts)
		if err != nil {
			return err
		}
		next := &Fleet{Generations: append(slices.Clone(f.Generations), g)}
		if _, err := s.cfg.Records.Update(ctx, fleetKey, Record{Fleet: next}, rev); err != nil {
			return err
		}
		s.cfg.Log.Info("fleet key rotates", "generation", g.Number)
	}
	return s.finish(ctx)
}

// finish wraps every key with the last generation, and removes the others.
func (s *Store) finish(ctx context.Context) error {
	f, rev, err := s.fleet(ctx) // first: what is wrapped with an older generation after this is wrapped anew by whoever does it
	if err != nil {
		return err
	}
	keys, err := s.cfg.Records.Keys(ctx)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if id := drover.KeyID(key); id.Valid() {
			if err := s.rewrap(ctx, id); err != nil && !drover.Is(err, drover.NotFound) {
				return err
			}
		}
	}
	if len(f.Generations) == 1 {
		return nil
	}
	// At this revision: nobody has made another generation since, or removed these.
	_, err = s.cfg.Records.Update(ctx, fleetKey, Record{Fleet: &Fleet{Generations: []Generation{f.last()}}}, rev)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for number := range s.opened {
		if number != f.last().Number {
			delete(s.opened, number)
		}
	}
	s.cfg.Log.Info("fleet key was rotated", "generation", f.last().Number, "keys", len(keys))
	return nil
}

// rewrap wraps a key with the last generation, unless it is.
func (s *Store) rewrap(ctx context.Context, id drover.KeyID) error {
	for range casTries {
		d, rev, err := s.data(ctx, id)
		if err != nil {
			return err
		}
		aead, generation, err := s.wrapper(ctx)
		if err != nil || d.Generation == generation {
			return err
		}
		secret, err := s.unwrap(ctx, id, d)
		if drover.Is(err, drover.Conflict) {
			continue
		}
		if err != nil {
			return err
		}
		now := *d
		now.Generation, now.Wrapped = generation, aead.Seal(nil, nil, secret, wrapInfo(id))
		if _, err = s.cfg.Records.Update(ctx, string(id), Record{Data: &now}, rev); err == nil || !drover.Is(err, drover.Conflict) {
			return err
		}
	}
	return drover.Errorf(drover.Unavailable, "key %s cannot be wrapped: it kept being changed by others", id)
}

// Keyring describes the keys.
func (s *Store) Keyring(ctx context.Context) (drover.Keyring, error) {
	f, _, err := s.fleet(ctx)
	if err != nil {
		return drover.Keyring{}, err
	}
	g := f.last()
	ring := drover.Keyring{Generation: g.Number, MadeAt: g.MadeAt, Hosts: slices.Sorted(maps.Keys(g.Sealed)), Rotating: len(f.Generations) > 1, Keys: []drover.KeyInfo{}}
	keys, err := s.cfg.Records.Keys(ctx)
	if err != nil {
		return ring, err
	}
	for _, key := range keys {
		id := drover.KeyID(key)
		if !id.Valid() {
			continue
		}
		d, _, err := s.data(ctx, id)
		if drover.Is(err, drover.NotFound) {
			continue
		}
		if err != nil {
			return ring, err
		}
		ring.Keys = append(ring.Keys, drover.KeyInfo{ID: id, Generation: d.Generation, CreatedAt: d.CreatedAt})
	}
	slices.SortFunc(ring.Keys, func(a, b drover.KeyInfo) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return ring, nil
}
