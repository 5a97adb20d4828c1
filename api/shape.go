package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"drover"
)

// checkShape compares a well-formed JSON value with the type that it is to be read into, and names the first place that does not fit,
// as a path such as "config.mounts[0].path". encoding/json finds the same mistakes, but loses the path in maps, in arrays
// and below types that read themselves. Fields that the type does not have are left alone.
func checkShape(path string, raw json.RawMessage, t reflect.Type) error {
	raw = bytes.TrimSpace(raw)
	if bytes.Equal(raw, []byte("null")) {
		return nil
	}
	if t.Kind() == reflect.Pointer {
		return checkShape(path, raw, t.Elem())
	}
	if t != reflect.TypeFor[drover.MachineConfig]() && reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		if err := reflect.New(t).Interface().(json.Unmarshaler).UnmarshalJSON(raw); err != nil {
			return shapeError(path, "%s", rootText(err))
		}
		return nil
	}
	if t == reflect.TypeFor[drover.Caveat]() { // which is text
		return checkKind(path, raw, reflect.TypeFor[string](), raw[0] == '"')
	}
	switch t.Kind() {
	case reflect.Struct:
		return checkObject(path, raw, t)
	case reflect.Map:
		return checkMap(path, raw, t)
	case reflect.Slice:
		return checkArray(path, raw, t)
	case reflect.String:
		return checkKind(path, raw, t, raw[0] == '"')
	case reflect.Bool:
		return checkKind(path, raw, t, raw[0] == 't' || raw[0] == 'f')
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		_, err := strconv.ParseInt(string(raw), 10, t.Bits())
		return checkKind(path, raw, t, err == nil)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		_, err := strconv.ParseUint(string(raw), 10, t.Bits())
		return checkKind(path, raw, t, err == nil)
	default:
		return nil // any value fits an interface; what is left is found by the decoder
	}
}

func checkObject(path string, raw json.RawMessage, t reflect.Type) error {
	var members map[string]json.RawMessage
	if raw[0] != '{' || json.Unmarshal(raw, &members) != nil {
		return checkKind(path, raw, t, false)
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if f.Anonymous && name == "" { // its fields are written as if they were the outer one's
			if err := checkObject(path, raw, f.Type); err != nil {
				return err
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		for key, value := range members {
			// encoding/json matches names without regard to case.
			if !strings.EqualFold(key, name) {
				continue
			}
			if err := checkShape(join(path, name), value, f.Type); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkMap(path string, raw json.RawMessage, t reflect.Type) error {
	var members map[string]json.RawMessage
	if raw[0] != '{' || json.Unmarshal(raw, &members) != nil {
		return checkKind(path, raw, t, false)
	}
	for _, key := range slices.Sorted(maps.Keys(members)) {
		if err := checkShape(join(path, key), members[key], t.Elem()); err != nil {
			return err
		}
	}
	return nil
}

func checkArray(path string, raw json.RawMessage, t reflect.Type) error {
	var items []json.RawMessage
	if raw[0] != '[' || json.Unmarshal(raw, &items) != nil {
		return checkKind(path, raw, t, false)
	}
	for i, value := range items {
		if err := checkShape(fmt.Sprintf("%s[%d]", path, i), value, t.Elem()); err != nil {
			return err
		}
	}
	return nil
}

func checkKind(path string, raw json.RawMessage, t reflect.Type, fits bool) error {
	if fits {
		return nil
	}
	return shapeError(path, "expected %s, got %s", kindName(t), describe(raw))
}

func shapeError(path, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	return drover.Errorf(drover.Invalid, "%s: %s", path, text).WithField(path)
}

// rootText is the text of the innermost error: the json package wraps what an UnmarshalJSON returned.
func rootText(err error) string {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err.Error()
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// kindName says in a user's words what a type is written as in JSON.
func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return kindName(t.Elem())
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number that is not negative"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	default:
		return t.String()
	}
}
