package fleet

import (
	"context"
	"slices"
	"time"

	"drover"
	"drover/natsbus"
	"drover/sealedsecrets"
)

// SecretsWish says how a machine is to be given the secrets of its app. MinSecretsVersion is the version that it needs at least; 0 leaves it at what
// there is. SkipSecrets: it is given none.
type SecretsWish struct {
	MinSecretsVersion uint64
	SkipSecrets       bool
}

// secretRecords is the bucket that the fleet's own store of secrets is in.
type secretRecords struct {
	*natsbus.Bucket[sealedsecrets.Record]
}

var _ sealedsecrets.Records = secretRecords{}

func (r secretRecords) Get(ctx context.Context, key string) (sealedsecrets.Record, uint64, error) {
	return r.GetConfirmed(ctx, key)
}

func (r secretRecords) Delete(ctx context.Context, key string, rev uint64) error {
	_, err := r.Bucket.Delete(ctx, key, rev)
	return err
}

func (r secretRecords) Keys(ctx context.Context) ([]string, error) { return r.Bucket.Keys(ctx, "") }

// openSecrets opens what secrets are kept in. A fleet without keys keeps none.
func (f *Fleet) openSecrets(ctx context.Context) error {
	if f.keys == nil {
		return nil
	}
	bucket, err := natsbus.OpenBucket[sealedsecrets.Record](ctx, f.conn, natsbus.BucketSecrets, natsbus.BucketOptions{Replicas: f.cfg.Replicas})
	if err != nil {
		return err
	}
	f.secretRecords = bucket
	f.secrets = sealedsecrets.New(sealedsecrets.Config{Records: secretRecords{bucket}, Keys: f.keys, Log: f.log, Now: f.now,
		Hit: func(point string) { f.hit("fleet." + point) },
		Used: func(ctx context.Context, id drover.KeyID) (bool, error) {
			used, err := f.usedKeys(ctx)
			return used[id], err
		}})
	return nil
}

// usedBySecrets adds the keys that secrets are encrypted with.
func (f *Fleet) usedBySecrets(ctx context.Context, used map[drover.KeyID]bool) error {
	if f.secretRecords == nil {
		return nil
	}
	all, err := f.secretRecords.All(ctx)
	for _, r := range all {
		if len(r.Value.Secrets) > 0 {
			used[r.Value.Key] = true
		}
	}
	return err
}

// secretStore returns the store for an app that is there.
func (f *Fleet) secretStore(ctx context.Context, app drover.AppName) (drover.SecretStore, error) {
	if _, err := f.App(ctx, app); err != nil {
		return nil, err
	}
	if f.secrets == nil {
		return nil, drover.Errorf(drover.Precondition, "app %q has no secrets, and cannot have any: this fleet keeps no keys", app).
			WithHint("give the control hosts their certificates: see docs/SECRETS.md")
	}
	return f.secrets, nil
}

// Secrets describes the secrets of an app. With a least version, it refuses when there is none so new.
func (f *Fleet) Secrets(ctx context.Context, app drover.AppName, least uint64) (drover.SecretSet, error) {
	store, err := f.secretStore(ctx, app)
	if err != nil {
		return drover.SecretSet{}, err
	}
	set, err := store.Secrets(ctx, app)
	if err == nil && least > set.Version {
		err = noSuchVersion(app, "version", least, set.Version)
	}
	return set, err
}

// SecretValues returns the secrets of an app with their values.
func (f *Fleet) SecretValues(ctx context.Context, app drover.AppName) (drover.SecretValues, error) {
	store, err := f.secretStore(ctx, app)
	if err != nil {
		return drover.SecretValues{}, err
	}
	return store.Values(ctx, app)
}

// ChangeSecrets sets the secrets that have a value and removes those that have nil, all at once. Machines are given them at their next start.
func (f *Fleet) ChangeSecrets(ctx context.Context, app drover.AppName, changes map[string]*drover.SecretValue) (drover.SecretSet, error) {
	store, err := f.secretStore(ctx, app)
	if err != nil {
		return drover.SecretSet{}, err
	}
	if err := f.stays(ctx, app); err != nil {
		return drover.SecretSet{}, err
	}
	return store.Change(ctx, app, changes, func(ctx context.Context) error { return f.stays(ctx, app) })
}

// dropSecrets destroys the secrets of an app that goes.
func (f *Fleet) dropSecrets(ctx context.Context, app drover.AppName) error {
	if f.secrets == nil {
		return nil
	}
	return f.secrets.Drop(ctx, app)
}

// noSuchVersion refuses a version that there is not. To wait for it would be to wait for ever: versions that were answered are durable, so one that
// is not there was lost with the store that had it.
func noSuchVersion(app drover.AppName, field string, asked, now uint64) *drover.Error {
	return drover.Errorf(drover.Precondition, "%s: the secrets of app %q are at version %d, there is no version %d: the fleet's store was brought back from an older copy, or the number is another fleet's",
		field, app, now, asked).WithField(field).
		WithHint("see what there is with 'drover secrets list --app %s', set what is missing again, and use the version that is answered then", app)
}

// secretsVersion is what a machine's record is to say; known is false when the store did not tell.
type secretsVersion struct {
	version uint64
	known   bool
}

// give writes the version that the next start needs into the record.
func (v secretsVersion) give(m *drover.Machine) {
	switch {
	case m.SkipSecrets:
		m.SecretsVersion = 0
	case v.known:
		m.SecretsVersion = v.version
	}
}

// secretsFor finds the version of an app's secrets that a machine is to start with. A store that does not answer does not keep machines from being changed:
// they start with what their hosts get, unless a version was asked for.
func (f *Fleet) secretsFor(ctx context.Context, app drover.AppName, wish SecretsWish) (secretsVersion, error) {
	if f.secrets == nil {
		if wish.MinSecretsVersion > 0 {
			return secretsVersion{}, noSuchVersion(app, "min_secrets_version", wish.MinSecretsVersion, 0)
		}
		return secretsVersion{known: true}, nil
	}
	set, err := f.secrets.Secrets(ctx, app)
	switch {
	case err != nil && wish.MinSecretsVersion > 0:
		return secretsVersion{}, err
	case err != nil:
		f.log.Warn("the version of an app's secrets is not known now", "app", string(app), "err", err)
		return secretsVersion{}, nil
	case wish.MinSecretsVersion > set.Version:
		return secretsVersion{}, noSuchVersion(app, "min_secrets_version", wish.MinSecretsVersion, set.Version)
	}
	v := secretsVersion{version: set.Version, known: true}
	if len(set.Secrets) == 0 && wish.MinSecretsVersion == 0 {
		v.version = 0 // there is nothing that a start would have to wait for
	}
	return v, nil
}

// newestSecrets is secretsFor for a machine that is started anew.
func (f *Fleet) newestSecrets(ctx context.Context, app drover.AppName, id drover.MachineID) secretsVersion {
	if f.await(ctx) != nil {
		return secretsVersion{}
	}
	v, err := f.view(app, id)
	if err != nil {
		return secretsVersion{}
	}
	version, err := f.secretsFor(ctx, v.Machine.App, SecretsWish{})
	if err != nil {
		return secretsVersion{}
	}
	return version
}

// serveSecrets hands secrets out to hosts until ctx ends.
func (f *Fleet) serveSecrets(ctx context.Context) {
	for ctx.Err() == nil && f.secrets != nil && f.cfg.TLSDir != "" {
		err := natsbus.ServeSecrets(ctx, f.conn, f.handOutSecrets)
		if ctx.Err() == nil {
			f.log.Warn("no secrets are handed out for a moment", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(f.timing.Repair):
		}
	}
}

// handOutSecrets answers a host's request for the secrets of a machine. A host that asks in another's name gets what only that one can read.
func (f *Fleet) handOutSecrets(ctx context.Context, req drover.SecretsRequest) (drover.SealedKey, error) {
	m, err := f.givenTo(ctx, req.Host, req.Machine)
	if err != nil {
		return drover.SealedKey{}, err
	}
	var values drover.SecretValues
	if !m.SkipSecrets {
		if values, err = f.secrets.Values(ctx, m.App); err != nil {
			return drover.SealedKey{}, err
		}
	}
	sealed, err := natsbus.SealSecrets(f.cfg.TLSDir, req, values)
	if err == nil && len(values.Values) > 0 {
		f.log.Info("secrets handed out", "app", string(m.App), "machine", string(m.ID), "to", string(req.Host), "version", values.Version)
	}
	return sealed, err
}

// givenTo returns the machine, Conflict unless it is placed on the host, or is on its way there.
func (f *Fleet) givenTo(ctx context.Context, host drover.HostID, id drover.MachineID) (drover.Machine, error) {
	if err := f.await(ctx); err != nil {
		return drover.Machine{}, err
	}
	m, _, err := f.state.machines.get(ctx, string(id))
	if err != nil {
		return m, err
	}
	p, err := f.state.placementOf(ctx, id)
	if err != nil {
		return m, err
	}
	f.state.mu.RLock()
	move := f.state.moveLocked(id)
	f.state.mu.RUnlock()
	if p.Host == host || move != nil && move.Target == host {
		return m, nil
	}
	return m, drover.Errorf(drover.Conflict, "host %q does not get the secrets of machine %q, which is on host %q", host, id, p.Host)
}

// sweepSecrets destroys the secrets of apps that are gone: a crash may have left them.
func (r *repairer) sweepSecrets(ctx context.Context) error {
	if r.secrets == nil {
		return nil
	}
	kept, err := r.secrets.Apps(ctx)
	if err != nil || len(kept) == 0 {
		return err
	}
	apps, err := r.state.apps.bucket.Keys(ctx, "")
	if err != nil {
		return err
	}
	for _, app := range kept {
		if slices.Contains(apps, string(app)) {
			continue
		}
		if err := r.secrets.Drop(ctx, app); err != nil {
			return err
		}
	}
	return nil
}
