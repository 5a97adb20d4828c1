package apitest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"drover"
)

// secretsOf is the secrets of one app.
type secretsOf struct {
	version uint64
	values  map[string]drover.SecretValue
}

// Secrets lists them, with digests that count up.
func (b *Backend) Secrets(_ context.Context, app drover.AppName, least uint64) (drover.SecretSet, error) {
	if err := b.begin("Secrets"); err != nil {
		return drover.SecretSet{}, err
	}
	defer b.mu.Unlock()
	set := b.secretsLocked(app)
	if least > set.Version {
		return set, drover.Errorf(drover.Precondition, "the secrets of app %q are at version %d", app, set.Version).WithField("version")
	}
	return set, nil
}

func (b *Backend) secretsLocked(app drover.AppName) drover.SecretSet {
	s := b.secrets[app]
	set := drover.SecretSet{Version: s.version, Secrets: []drover.Secret{}}
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		set.Secrets = append(set.Secrets, drover.Secret{Name: name, Digest: fmt.Sprintf("%016x", len(s.values[name].Reveal())), CreatedAt: b.Now(), UpdatedAt: b.Now()})
	}
	return set
}

// SecretValues returns them with their values.
func (b *Backend) SecretValues(_ context.Context, app drover.AppName) (drover.SecretValues, error) {
	if err := b.begin("SecretValues"); err != nil {
		return drover.SecretValues{}, err
	}
	defer b.mu.Unlock()
	s := b.secrets[app]
	return drover.SecretValues{Version: s.version, Values: maps.Clone(s.values)}, nil
}

// ChangeSecrets changes them; the version counts up.
func (b *Backend) ChangeSecrets(_ context.Context, app drover.AppName, changes map[string]*drover.SecretValue) (drover.SecretSet, error) {
	if err := b.begin("ChangeSecrets"); err != nil {
		return drover.SecretSet{}, err
	}
	defer b.mu.Unlock()
	s := b.secrets[app]
	next := secretsOf{version: s.version + 1, values: map[string]drover.SecretValue{}}
	maps.Copy(next.values, s.values)
	for name, value := range changes {
		if value == nil {
			delete(next.values, name)
			continue
		}
		if err := drover.CheckSecretName(name); err != nil {
			return drover.SecretSet{}, err
		}
		next.values[name] = *value
	}
	if b.secrets == nil {
		b.secrets = map[drover.AppName]secretsOf{}
	}
	b.secrets[app] = next
	b.notifyLocked()
	return b.secretsLocked(app), nil
}
