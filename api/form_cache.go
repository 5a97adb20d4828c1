package api

import (
	"encoding/json"
	"sync"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// maxCached bounds the bytes of machines that are kept as they are written. When there are more, all start anew.
const maxCached = 64 << 20

// formCache keeps machines as they are written in lists: a list of thousands is asked for again and again, and few of them have changed.
type formCache struct {
	// write makes the form that is kept.
	write func(v fleet.MachineView) apiv1.Machine

	mu    sync.Mutex
	bytes int
	all   map[drover.MachineID]cachedForm
}

// cachedForm is a machine as it is written, and what it was written of.
type cachedForm struct {
	of   formKey
	text json.RawMessage
}

// formKey tells whether a machine is the same as before.
type formKey struct {
	revisions fleet.Revisions
	host      drover.HostStatus
	state     drover.MachineState
	migration apiv1.MachineMigration
}

// keyOf returns the key of a view; ok is false for one that is written anew each time.
func keyOf(v fleet.MachineView) (key formKey, ok bool) {
	key = formKey{revisions: v.Revisions, host: v.HostStatus, state: v.Status.State}
	if v.Migration != nil {
		key.migration = apiv1.MachineMigration{ID: v.Migration.ID, Phase: v.Migration.Phase, Target: v.Migration.Target}
	}
	return key, v.Revisions != (fleet.Revisions{}) && v.HostStatus == drover.HostOK && v.Nonce == ""
}

// form writes a machine, or finds it written.
func (c *formCache) form(v fleet.MachineView) (json.RawMessage, error) {
	key, cacheable := keyOf(v)
	if cacheable {
		c.mu.Lock()
		found, ok := c.all[v.Machine.ID]
		c.mu.Unlock()
		if ok && found.of == key {
			return found.text, nil
		}
	}
	text, err := json.Marshal(c.write(v))
	if err != nil || !cacheable {
		return text, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += len(text) - len(c.all[v.Machine.ID].text)
	if c.bytes > maxCached || c.all == nil {
		c.all, c.bytes = map[drover.MachineID]cachedForm{}, len(text)
	}
	c.all[v.Machine.ID] = cachedForm{key, text}
	return text, nil
}

// list writes an array of machines.
func (c *formCache) list(views []fleet.MachineView) (json.RawMessage, error) {
	out := json.RawMessage("[")
	for i, v := range views {
		text, err := c.form(v)
		if err != nil {
			return nil, drover.Errorf(drover.Internal, "cannot write machine %q: %w", v.Machine.ID, err)
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, text...)
	}
	return append(out, ']'), nil
}
