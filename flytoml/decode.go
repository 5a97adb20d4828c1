package flytoml

import (
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// wrongKind says in a user's words that a value is of the wrong kind; "" when that is not what is wrong.
func wrongKind(text string, wrong *toml.DecodeError) string {
	key := wrong.Key()
	want := kindAt(reflect.TypeFor[File](), key)
	line, column := wrong.Position()
	lines := strings.Split(text, "\n")
	if want == "" || line < 1 || line > len(lines) || column < 1 || column > len(lines[line-1]) {
		return ""
	}
	value := strings.ToValidUTF8(strings.TrimSpace(lines[line-1][column-1:]), "")
	return strings.Join(key, ".") + " is " + value + "; expected " + want
}

// kindAt names what a file has at a key; "" where there is nothing, or anything may be.
func kindAt(t reflect.Type, key []string) string {
	for t.Kind() == reflect.Pointer || (t.Kind() == reflect.Slice && len(key) > 0) {
		t = t.Elem()
	}
	if len(key) > 0 {
		switch t.Kind() {
		case reflect.Map:
			return kindAt(t.Elem(), key[1:])
		case reflect.Struct:
			for i := range t.NumField() {
				if f := t.Field(i); f.Anonymous {
					if kind := kindAt(f.Type, key); kind != "" {
						return kind
					}
				} else if name, _, _ := strings.Cut(f.Tag.Get("toml"), ","); name == key[0] {
					return kindAt(f.Type, key[1:])
				}
			}
		}
		return ""
	}
	return kindWords(t)
}

// kindWords names in a user's words what a type holds; "" for one that may hold anything.
func kindWords(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a text in quotation marks"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64, reflect.Uint32:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			return "an array of texts"
		}
		return "an array"
	case reflect.Map, reflect.Struct:
		return "a table"
	}
	return ""
}
