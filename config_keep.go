package drover

import (
	"bytes"
	"encoding/json"
	"strings"
)

// kept is what an object or array of a config had besides what its Go type writes: fields that are not known, and known ones whose value, such
// as null or false, is not written again. Values stay as they came, to the digit.
//
// What belongs to an element of a list is found by its place: code may add elements at the end and change those that are there; taking one out
// of the middle gives what was kept with the later ones to their neighbours.
type kept struct {
	// fields are the values of this object; inside is what was kept within values that are known, by name or place.
	fields map[string]json.RawMessage
	inside map[string]*kept
	items  map[int]*kept
}

// keep compares what came with what is written again, and returns the difference; nil for none.
func keep(came, written json.RawMessage) (*kept, error) {
	var k kept
	switch {
	case isObject(came) && isObject(written):
		var had, has map[string]json.RawMessage
		if err := unmarshalBoth(came, &had, written, &has); err != nil {
			return nil, err
		}
		for name, value := range had {
			if err := k.keepField(name, value, has); err != nil {
				return nil, err
			}
		}
	case isArray(came) && isArray(written):
		var had, has []json.RawMessage
		if err := unmarshalBoth(came, &had, written, &has); err != nil {
			return nil, err
		}
		for i := range min(len(had), len(has)) {
			in, err := keep(had[i], has[i])
			if err != nil {
				return nil, err
			}
			if in != nil {
				if k.items == nil {
					k.items = map[int]*kept{}
				}
				k.items[i] = in
			}
		}
	}
	if k.fields == nil && k.inside == nil && k.items == nil {
		return nil, nil
	}
	return &k, nil
}

func (k *kept) keepField(name string, value json.RawMessage, has map[string]json.RawMessage) error {
	now, written := has[name]
	if !written {
		for other := range has {
			if strings.EqualFold(other, name) {
				return nil // the json package takes the one name for the other
			}
		}
		if k.fields == nil {
			k.fields = map[string]json.RawMessage{}
		}
		k.fields[name] = value
		return nil
	}
	in, err := keep(value, now)
	if err != nil || in == nil {
		return err
	}
	if k.inside == nil {
		k.inside = map[string]*kept{}
	}
	k.inside[name] = in
	return nil
}

// add puts what was kept back into what is written. A known field that has a value by now has that one.
func (k *kept) add(written json.RawMessage) (json.RawMessage, error) {
	switch {
	case isObject(written):
		var has map[string]json.RawMessage
		if err := json.Unmarshal(written, &has); err != nil {
			return nil, err
		}
		for name, in := range k.inside {
			if value, there := has[name]; there {
				full, err := in.add(value)
				if err != nil {
					return nil, err
				}
				has[name] = full
			}
		}
		for name, value := range k.fields {
			if _, there := has[name]; !there {
				has[name] = value
			}
		}
		return json.Marshal(has)
	case isArray(written):
		var has []json.RawMessage
		if err := json.Unmarshal(written, &has); err != nil {
			return nil, err
		}
		for i, in := range k.items {
			if i < len(has) {
				full, err := in.add(has[i])
				if err != nil {
					return nil, err
				}
				has[i] = full
			}
		}
		return json.Marshal(has)
	}
	return written, nil
}

func unmarshalBoth(a []byte, into any, b []byte, and any) error {
	if err := json.Unmarshal(a, into); err != nil {
		return err
	}
	return json.Unmarshal(b, and)
}

func isObject(b json.RawMessage) bool { return bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) }
func isArray(b json.RawMessage) bool  { return bytes.HasPrefix(bytes.TrimSpace(b), []byte("[")) }

// plainConfig has the fields of MachineConfig without its methods.
type plainConfig MachineConfig

// UnmarshalJSON reads a config and keeps what it does not know.
func (c *MachineConfig) UnmarshalJSON(b []byte) error {
	var p plainConfig
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	written, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if p.extra, err = keep(b, written); err != nil {
		return err
	}
	*c = MachineConfig(p)
	return nil
}

// MarshalJSON writes the config with what was kept.
func (c MachineConfig) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(plainConfig(c))
	if err != nil || c.extra == nil {
		return b, err
	}
	return c.extra.add(b)
}

// Extra returns the value of a field of the config that is not known here, as it came; nil when it was not given.
func (c MachineConfig) Extra(name string) json.RawMessage {
	if c.extra == nil {
		return nil
	}
	return c.extra.fields[name]
}
