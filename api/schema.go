package api

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"drover"
	"drover/apiv1"
)

// schemas makes the document's schemas from Go types. A struct becomes a component under its own name.
type schemas struct {
	components map[string]object
	types      map[string]reflect.Type
}

func newSchemas() *schemas {
	return &schemas{components: map[string]object{}, types: map[string]reflect.Type{}}
}

// special describes the types that write themselves.
func special(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case reflect.TypeFor[drover.Duration]():
		return object{"type": "string", "description": "a duration such as 1m30s; a number of nanoseconds is read too", "example": "5s"}
	case reflect.TypeFor[drover.Caveat]():
		return object{"type": "string", "description": "a limit of a token", "example": "app = ledger"}
	case reflect.TypeFor[apiv1.Signal]():
		return object{"description": "a signal's name, or its number", "oneOf": []object{{"type": "string"}, {"type": "integer"}}}
	case reflect.TypeFor[drover.Autostop]():
		return object{"oneOf": []object{{"type": "string", "enum": []any{"off", "stop", "suspend"}}, {"type": "boolean"}}}
	case reflect.TypeFor[json.RawMessage]():
		return object{}
	}
	return nil
}

// words lists the values of the string types that have a fixed set of them in answers.
func words(t reflect.Type) []any {
	list := func(words ...any) []any { return words }
	switch t {
	case reflect.TypeFor[drover.Code]():
		var codes []any
		for _, c := range drover.Codes {
			codes = append(codes, c)
		}
		return codes
	case reflect.TypeFor[drover.Phase]():
		var phases []any
		for _, p := range drover.Phases {
			phases = append(phases, p)
		}
		return phases
	case reflect.TypeFor[drover.MachineState]():
		return list(drover.StateCreated, drover.StateStarting, drover.StateStarted, drover.StateStopping, drover.StateStopped,
			drover.StateSuspending, drover.StateSuspended, drover.StateFailed, drover.StateDestroying, drover.StateDestroyed)
	case reflect.TypeFor[drover.Goal]():
		return list(drover.GoalStarted, drover.GoalStopped, drover.GoalSuspended, drover.GoalDestroyed)
	case reflect.TypeFor[drover.HostStatus]():
		return list(drover.HostOK, drover.HostUnknown, drover.HostUnreachable)
	case reflect.TypeFor[drover.Outcome]():
		return list(drover.Running, drover.Aborting, drover.Aborted, drover.Succeeded)
	case reflect.TypeFor[drover.DrainState]():
		return listOf(drover.DrainStates)
	case reflect.TypeFor[drover.ItemState]():
		return listOf(drover.ItemStates)
	case reflect.TypeFor[drover.DrainKind]():
		return list(drover.DrainAway, drover.DrainReturn)
	case reflect.TypeFor[drover.AtDeadline]():
		return list(drover.DeadlineLeave, drover.DeadlineStop)
	case reflect.TypeFor[drover.VolumeState]():
		return list(drover.VolumeCreating, drover.VolumeCreated, drover.VolumeHydrating, drover.VolumeDestroyed, drover.VolumeDestroying)
	case reflect.TypeFor[drover.SnapshotState]():
		return list(drover.SnapshotCreating, drover.SnapshotCreated, drover.SnapshotFailed, drover.SnapshotDestroying)
	case reflect.TypeFor[drover.Severity]():
		return list(drover.SeverityWarning, drover.SeverityCritical)
	case reflect.TypeFor[drover.LayerState]():
		return list(drover.LayerReady, drover.LayerFrozen, drover.LayerImage)
	case reflect.TypeFor[drover.Role]():
		return list(drover.RoleWorker, drover.RoleControl, drover.RoleEdge, drover.RoleGateway)
	case reflect.TypeFor[drover.Accel]():
		return list(drover.AccelKVM, drover.AccelTCG)
	case reflect.TypeFor[drover.RestartPolicy]():
		return list(drover.RestartNo, drover.RestartOnFailure, drover.RestartAlways)
	case reflect.TypeFor[drover.Schedule]():
		return list(drover.Hourly, drover.Daily, drover.Weekly, drover.Monthly)
	case reflect.TypeFor[drover.CheckType]():
		return list(drover.CheckTCP, drover.CheckHTTP)
	}
	return nil
}

func listOf[T any](words []T) []any {
	var all []any
	for _, w := range words {
		all = append(all, w)
	}
	return all
}

// of returns the schema of a type, or a reference to it.
func (s *schemas) of(t reflect.Type) (object, error) {
	if schema := special(t); schema != nil {
		return schema, nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.String:
		if words := words(t); words != nil {
			return object{"type": "string", "enum": words}, nil
		}
		return object{"type": "string"}, nil
	case reflect.Bool:
		return object{"type": "boolean"}, nil
	case reflect.Int64: // such as bytes: a client must not take them for 32 bits
		return object{"type": "integer", "format": "int64"}, nil
	case reflect.Uint64:
		return object{"type": "integer", "format": "int64", "minimum": 0}, nil
	case reflect.Int, reflect.Int32:
		return object{"type": "integer"}, nil
	case reflect.Uint, reflect.Uint32:
		return object{"type": "integer", "minimum": 0}, nil
	case reflect.Float64:
		return object{"type": "number"}, nil
	case reflect.Interface:
		return object{}, nil
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "format": "byte"}, nil
		}
		items, err := s.of(t.Elem())
		return object{"type": "array", "items": items}, err
	case reflect.Map:
		values, err := s.of(t.Elem())
		return object{"type": "object", "additionalProperties": values}, err
	case reflect.Struct:
		return s.component(t)
	}
	return nil, fmt.Errorf("no schema for the Go type %s", t)
}

// component describes a struct under its name and returns a reference.
func (s *schemas) component(t reflect.Type) (object, error) {
	name := t.Name()
	ref := object{"$ref": "#/components/schemas/" + name}
	if known, ok := s.types[name]; ok {
		if known != t {
			return nil, fmt.Errorf("both %s and %s would be the schema %q", known, t, name)
		}
		return ref, nil
	}
	s.types[name] = t
	schema := object{"type": "object"}
	properties, required := object{}, []string{}
	if err := s.fields(t, properties, &required); err != nil {
		return nil, err
	}
	schema["properties"] = properties
	if t == reflect.TypeFor[drover.MachineConfig]() {
		// What a config does not say has a default; what it says beyond this is kept.
		required, schema["additionalProperties"] = []string{"image"}, true
	}
	if len(required) > 0 {
		schema["required"] = required
	}
	s.components[name] = schema
	return ref, nil
}

// fields describes the struct's fields. Those without omitempty or omitzero are always written, and so required.
func (s *schemas) fields(t reflect.Type, properties object, required *[]string) error {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if f.Anonymous && name == "" {
			if err := s.fields(f.Type, properties, required); err != nil {
				return err
			}
			continue
		}
		schema, err := s.of(f.Type)
		if err != nil {
			return fmt.Errorf("%s.%s: %w", t, f.Name, err)
		}
		properties[name] = schema
		if !strings.Contains(options, "omit") {
			*required = append(*required, name)
		}
	}
	return nil
}
