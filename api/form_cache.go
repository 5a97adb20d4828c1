package api

import (
	"encoding/json"
	"slices"
	"sync"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// maxCached bounds the bytes of machines that are kept as they are written, maxLists those of whole lists.
const (
	maxCached = 64 << 20
	maxLists  = 64 << 20
)

// formCache keeps machines as they are written in lists: a list of thousands is asked for again and again, and few of them have changed.
type formCache struct {
	// write makes the form that is kept.
	write func(v fleet.MachineView) apiv1.Machine

	mu sync.Mutex
	// all are machines that lists had which leave some out. When there are too many, all start anew.
	bytes int
	all   map[drover.MachineID]cachedForm

	// lists are whole lists as they were answered last, by app. When there are too many, those go that nobody has asked for the longest.
	listBytes int
	asked     uint64
	lists     map[drover.AppName]cachedList
}

// cachedList is the machines of a list as they were answered, and what each was written of; nil where that may be another one the next time.
type cachedList struct {
	of    []*fleet.MachineKey
	texts array
	bytes int
	// asked grows from one list to the next.
	asked uint64
}

// cachedForm is a machine as it is written, and what it was written of.
type cachedForm struct {
	of   fleet.MachineKey
	text json.RawMessage
}

// keeps reports whether a machine with the key is the same as long as the key is. What is known of one on a host that does not answer grows old by itself.
func keeps(key *fleet.MachineKey) bool {
	return key.Revisions != (fleet.Revisions{}) && key.HostStatus == drover.HostOK
}

// form writes a machine, or finds it written.
func (c *formCache) form(v fleet.MachineView) (json.RawMessage, error) {
	key := v.Key()
	cacheable := keeps(&key) && v.Nonce == ""
	if cacheable {
		c.mu.Lock()
		found, ok := c.all[v.Machine.ID]
		c.mu.Unlock()
		if ok && found.of == key {
			return found.text, nil
		}
	}
	text, err := c.written(v)
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

func (c *formCache) written(v fleet.MachineView) (json.RawMessage, error) {
	text, err := json.Marshal(c.write(v))
	if err != nil {
		return nil, drover.Errorf(drover.Internal, "cannot write machine %q: %w", v.Machine.ID, err)
	}
	return text, nil
}

// list writes machines.
func (c *formCache) list(views []fleet.MachineView) (array, error) {
	out := make(array, 0, len(views))
	for _, v := range views {
		text, err := c.form(v)
		if err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	return out, nil
}

// whole writes all machines of an app, whose keys these are, in the order of MachineKeys: what has not changed since the last time as it was written then. view
// is asked for those that have. With keep the list is remembered for the next time.
func (c *formCache) whole(app drover.AppName, keys []*fleet.MachineKey, keep bool, view func(drover.MachineID) (fleet.MachineView, error)) (array, error) {
	c.mu.Lock()
	last := c.lists[app]
	c.mu.Unlock()
	texts := make(array, len(keys))
	var passing []int // those that are written anew the next time
	at := 0
	for i, key := range keys {
		for at < len(last.of) && last.of[at] != key && last.of[at].Compare(key) < 0 {
			at++
		}
		if at < len(last.of) && last.texts[at] != nil && (last.of[at] == key || *last.of[at] == *key) {
			texts[i] = last.texts[at]
			continue
		}
		v, err := view(key.ID)
		if drover.Is(err, drover.NotFound) {
			passing = append(passing, i)
			continue // it is gone since
		}
		if err != nil {
			return nil, err
		}
		if texts[i], err = c.written(v); err != nil {
			return nil, err
		}
		if !keeps(key) || v.Key() != *key {
			passing = append(passing, i)
		}
	}
	if keep {
		kept := cachedList{of: keys, texts: texts}
		if len(passing) > 0 {
			kept.texts = slices.Clone(texts)
			for _, i := range passing {
				kept.texts[i] = nil
			}
		}
		c.keepList(app, kept)
	}
	return texts, nil
}

// keepList remembers a whole list.
func (c *formCache) keepList(app drover.AppName, l cachedList) {
	for _, text := range l.texts {
		l.bytes += len(text)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lists == nil {
		c.lists = map[drover.AppName]cachedList{}
	}
	c.asked++
	l.asked = c.asked
	c.listBytes += l.bytes - c.lists[app].bytes
	c.lists[app] = l
	for c.listBytes > maxLists {
		oldest := app
		for name, other := range c.lists {
			if other.asked < c.lists[oldest].asked {
				oldest = name
			}
		}
		c.listBytes -= c.lists[oldest].bytes
		delete(c.lists, oldest)
	}
}
