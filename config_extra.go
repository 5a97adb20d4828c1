package drover

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
)

// unknownIn returns what of a JSON value a type has no field for, at any depth: a value of the same shape with nothing else in it. ok is
// false when there is no such thing.
func unknownIn(value any, t reflect.Type) (unknown any, ok bool) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t != reflect.TypeFor[plainConfig]() && reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return nil, false // it reads what it likes
	}
	switch v := value.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, member := range v {
			field, known := memberType(t, name)
			if !known {
				out[name] = member
			} else if part, some := unknownIn(member, field); some {
				out[name] = part
			}
		}
		return out, len(out) > 0 && (t.Kind() == reflect.Struct || t.Kind() == reflect.Map)
	case []any:
		if t.Kind() != reflect.Slice {
			return nil, false
		}
		out := make([]any, len(v))
		for i, item := range v {
			part, some := unknownIn(item, t.Elem())
			if some {
				out[i], ok = part, true
			}
		}
		return out, ok
	}
	return nil, false
}

// memberType returns the type that a member of an object is read into. Names of fields are matched without regard to case, as encoding/json does.
func memberType(t reflect.Type, name string) (reflect.Type, bool) {
	switch t.Kind() {
	case reflect.Map:
		return t.Elem(), true
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.IsExported() && strings.EqualFold(tag, name) {
				return f.Type, true
			}
		}
		return nil, false
	}
	return reflect.TypeFor[any](), true
}

// withUnknown puts what a type has no field for back into a JSON value. What is there already stays.
func withUnknown(value, unknown any) any {
	switch v := value.(type) {
	case map[string]any:
		more, ok := unknown.(map[string]any)
		for name, member := range more {
			if have, there := v[name]; there {
				v[name] = withUnknown(have, member)
			} else if ok {
				v[name] = member
			}
		}
	case []any:
		more, ok := unknown.([]any)
		for i := range v {
			if ok && len(more) == len(v) {
				v[i] = withUnknown(v[i], more[i])
			}
		}
	}
	return value
}

// decodeAny reads a JSON value and keeps numbers as they are written.
func decodeAny(b []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}
