package api

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
)

// readStrict is readBody that also refuses fields that the type does not have. The bodies about volumes are read with it: their fields are
// few and known, and "snapshot_retension" that is ignored is a snapshot that is gone when it is needed.
func readStrict(w http.ResponseWriter, r *http.Request, v any, optional bool) error {
	raw, err := readInto(w, r, v, optional)
	if err != nil || raw == nil {
		return err
	}
	return knownOnly("", raw, reflect.TypeOf(v).Elem())
}

// knownOnly names the first field of a JSON value that the type does not have. The value has the type's shape (checkShape).
func knownOnly(path string, raw json.RawMessage, t reflect.Type) error {
	if t.Kind() == reflect.Pointer {
		return knownOnly(path, raw, t.Elem())
	}
	var members map[string]json.RawMessage
	raw = bytes.TrimSpace(raw)
	if t.Kind() != reflect.Struct || raw[0] != '{' || json.Unmarshal(raw, &members) != nil {
		return nil
	}
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		fields[name] = t.Field(i).Type
	}
	for _, key := range slices.Sorted(maps.Keys(members)) {
		field, ok := fields[strings.ToLower(key)]
		if !ok {
			return badField(join(path, key), "is not a field of this request; expected one of %s", strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		}
		if err := knownOnly(join(path, key), members[key], field); err != nil {
			return err
		}
	}
	return nil
}
