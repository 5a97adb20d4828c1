package api

import (
	"encoding/json"
	"slices"
	"sync"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// maxCached bounds the bytes of machines that are kept as they are written, maxLists those of whole lists. When there are more, all start anew.
const (
	maxCached = 64 << 20
	maxLists  = 64 << 20
)

// formCache keeps machines as they are written in lists: a list of thousands is asked for again and again, and few of them have changed.
type formCache struct {
	// write makes the form that is kept.
	write func(v fleet.MachineView) apiv1.Machine

	mu    sync.Mutex
	bytes int
	all   map[drover.MachineID]cachedForm

	// lists are whole lists as they were answered last, by app.
	listBytes int
	lists     map[drover.AppName]cachedList
}

// cachedList is a list as it was answered, and what it was written of.
type cachedList struct {
	of   []fleet.MachineKey
	text json.RawMessage
}

// cachedForm is a machine as it is written, and what it was written of.
type cachedForm struct {
	of   fleet.MachineKey
	text json.RawMessage
}

// keeps reports whether a machine with the key is the same as long as the key is. What is known of one on a host that does not answer grows old by itself.
func keeps(key fleet.MachineKey) bool {
	return key.Revisions != (fleet.Revisions{}) && key.HostStatus == drover.HostOK
}

// form writes a machine, or finds it written.
func (c *formCache) form(v fleet.MachineView) (json.RawMessage, error) {
	key := v.Key()
	cacheable := keeps(key) && v.Nonce == ""
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

// whole writes the list of all machines of an app, whose keys these are: as it was answered last if nothing has changed since, else of what is written of
// the machines already. view is asked for those that have changed.
func (c *formCache) whole(app drover.AppName, keys []fleet.MachineKey, view func(drover.MachineID) (fleet.MachineView, error)) (json.RawMessage, error) {
	texts := make([]json.RawMessage, len(keys))
	c.mu.Lock()
	last, ok := c.lists[app]
	if ok && slices.Equal(last.of, keys) {
		c.mu.Unlock()
		return last.text, nil
	}
	for i, key := range keys {
		if found, ok := c.all[key.ID]; ok && found.of == key {
			texts[i] = found.text
		}
	}
	c.mu.Unlock()
	out, lasting := make(json.RawMessage, 1, len(last.text)+len(last.text)/16+2), true
	out[0] = '['
	for i, key := range keys {
		lasting = lasting && keeps(key)
		if texts[i] == nil {
			v, err := view(key.ID)
			if drover.Is(err, drover.NotFound) {
				lasting = false
				continue // it is gone since
			}
			if err == nil {
				lasting = lasting && v.Key() == key
				texts[i], err = c.form(v)
			}
			if err != nil {
				return nil, drover.Errorf(drover.Internal, "cannot write machine %q: %w", key.ID, err)
			}
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, texts[i]...)
	}
	out = append(out, ']')
	if lasting {
		c.keepList(app, cachedList{keys, out})
	}
	return out, nil
}

// keepList remembers a whole list.
func (c *formCache) keepList(app drover.AppName, l cachedList) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listBytes += len(l.text) - len(c.lists[app].text)
	if c.lists == nil || c.listBytes > maxLists {
		c.lists, c.listBytes = map[drover.AppName]cachedList{}, len(l.text)
	}
	if len(l.text) <= maxLists {
		c.lists[app] = l
	}
}
