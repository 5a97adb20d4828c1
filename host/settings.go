package host

import (
	"drover"
	"drover/boltstore"
)

// storageKey is the key of what an operator set for the host's storage. The storage daemon keeps it, too; this copy is for telling it.
const storageKey = "storage"

// loadSettings reads what was set before the agent started.
func (a *Agent) loadSettings() error {
	return a.cfg.Store.View(func(tx *boltstore.Tx) error {
		s, ok, err := settingsBucket.Get(tx, storageKey)
		if err == nil && ok {
			a.settings.Store(&s)
		}
		return err
	})
}

// rememberStorage keeps what the storage daemon has taken.
func (a *Agent) rememberStorage(s drover.StorageSettings) error {
	if err := a.update(func(tx *boltstore.Tx) error { return settingsBucket.Put(tx, storageKey, s) }); err != nil {
		return err
	}
	a.settings.Store(&s)
	return nil
}

// storageNow is what is set for the host's storage.
func (a *Agent) storageNow() drover.StorageSettings {
	if s := a.settings.Load(); s != nil {
		return *s
	}
	return drover.StorageSettings{}
}
