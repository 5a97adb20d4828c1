package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"drover"
	"drover/internal/durable"
)

// Secrets gets the secrets of apps from the control side (natsbus.HostSecrets).
type Secrets interface {
	// Secrets returns the secrets that a machine is to be started with. Unavailable when no control host answers; Conflict when the fleet does
	// not have this host run the machine.
	Secrets(ctx context.Context, id drover.MachineID) (drover.SecretValues, error)
}

// secretsWait bounds the question for a machine's secrets at a start that can do without the answer.
const secretsWait = 2 * time.Second

// secretsPath is where the host keeps what it got: in memory, so that it is gone without power.
func (m *machine) secretsPath() string { return filepath.Join(m.runDir(), "secrets") }

// bringSecrets gets the secrets for a start: the newest ones where the control side answers, else those that the host got last, if they are
// as new as the start needs. Where neither is there, the machine waits.
func (m *machine) bringSecrets(ctx context.Context, spec drover.Machine) (drover.SecretValues, error) {
	none := drover.SecretValues{}
	if spec.SkipSecrets {
		return none, m.dropSecrets()
	}
	need := max(spec.SecretsVersion, m.secretsSeen())
	kept, kerr := m.keptSecrets()
	enough := kerr == nil && kept.Version >= need
	got, err := m.askSecrets(ctx, need, enough || need == 0)
	switch {
	case err == nil && got.Version == 0 && need == 0:
		return none, m.dropSecrets()
	case err == nil && got.Version >= need:
		return got, m.keepSecrets(got)
	case enough:
		m.log.Info("the machine starts with the secrets that this host has", "version", kept.Version, "err", err)
		return kept, nil
	case err == nil:
		// The fleet's store was brought back from an older copy: there will be no newer ones.
		m.log.Warn("the machine needs newer secrets than there are", "needs", need, "version", got.Version)
		return got, m.keepSecrets(got)
	case kerr != nil && !errors.Is(kerr, fs.ErrNotExist):
		return none, kerr
	case need == 0:
		return none, nil // the app had none when the machine was last changed
	}
	code := drover.CodeOf(err)
	if code != drover.Canceled {
		code = drover.Unavailable // whatever it is, it may pass: the machine waits and does not fail
	}
	return none, drover.Errorf(code, "the host waits for the secrets of app %q: %w", spec.App, err)
}

// secretsSeen is the version that the machine has run with: it never goes back to an older one.
func (m *machine) secretsSeen() uint64 {
	r := m.rec.Load()
	if r.Desired == nil && r.Move != nil && r.Move.Reserve != nil {
		return r.Move.Reserve.Status.SecretsVersion
	}
	return r.Obs.Status.SecretsVersion
}

// askSecrets asks the control side; brief says that the start can do without the answer.
func (m *machine) askSecrets(ctx context.Context, need uint64, brief bool) (drover.SecretValues, error) {
	if m.agent.cfg.Secrets == nil {
		if need == 0 {
			return drover.SecretValues{}, nil
		}
		return drover.SecretValues{}, drover.Errorf(drover.Precondition, "host %q has no way to get secrets", m.agent.cfg.ID)
	}
	m.agent.hit("host.secrets.before")
	if brief {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, secretsWait)
		defer cancel()
	}
	got, err := call(ctx, func(ctx context.Context) (drover.SecretValues, error) { return m.agent.cfg.Secrets.Secrets(ctx, m.id) })
	m.agent.hit("host.secrets.after")
	return got, err
}

// bringMoveSecrets gets the secrets of a machine that is coming, before it is stopped: it could not start here without them.
func (m *machine) bringMoveSecrets(ctx context.Context, mv *moveRecord) error {
	if mv.adopted() || mv.Reserve == nil {
		return nil
	}
	_, err := m.bringSecrets(ctx, mv.Reserve.Spec)
	return err
}

// keepSecrets writes secrets where the next start finds them.
func (m *machine) keepSecrets(v drover.SecretValues) error {
	data, err := v.Encode()
	if err == nil {
		defer clear(data)
		if err = os.MkdirAll(m.runDir(), 0o700); err == nil {
			err = durable.WriteFile(m.secretsPath(), data, 0o600)
		}
	}
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot keep the secrets of machine %q: %w", m.id, err)
	}
	m.agent.hit("host.secrets.kept")
	return nil
}

// keptSecrets reads what the host got last; fs.ErrNotExist when it got none since it has power.
func (m *machine) keptSecrets() (drover.SecretValues, error) {
	data, err := os.ReadFile(m.secretsPath())
	if err != nil {
		return drover.SecretValues{}, drover.Errorf(drover.Internal, "cannot read the secrets of machine %q: %w", m.id, err)
	}
	defer clear(data)
	return drover.DecodeSecretValues(data)
}

// dropSecrets forgets them.
func (m *machine) dropSecrets() error {
	if err := os.Remove(m.secretsPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return drover.Errorf(drover.Internal, "cannot remove the secrets of machine %q: %w", m.id, err)
	}
	return nil
}

// secretsOf returns the secrets that were brought for a machine that is coming, for the config of the VM that takes its memory: its config disk is then
// as that of the source, though the guest has read that one long ago.
func (m *machine) secretsOf(spec drover.Machine) (drover.SecretValues, error) {
	if spec.SkipSecrets {
		return drover.SecretValues{}, nil
	}
	kept, err := m.keptSecrets()
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return kept, err
}

// revealed are the values themselves, by name.
func revealed(v drover.SecretValues) map[string]string {
	out := map[string]string{}
	for name, value := range v.Values {
		out[name] = value.Reveal()
	}
	return out
}
