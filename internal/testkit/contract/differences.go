package contract

import (
	"fmt"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// Difference is one place where Drover's answers differ from the published document on purpose.
type Difference struct {
	// What differs, and Why.
	What, Why string
	// apply makes the document say what Drover does; nil where the document says nothing that an answer could be held against.
	change func(*openapi3.T) error
}

func (d Difference) apply(doc *openapi3.T) error {
	if d.change == nil {
		return nil
	}
	return d.change(doc)
}

// Differences is the list of them all.
func Differences() []Difference {
	return []Difference{
		{What: "a duration is a text such as 5s",
			Why: "the document shows the members of a type of the Go language; the service itself and all its clients write texts",
			change: func(doc *openapi3.T) error {
				s := doc.Components.Schemas["fly.Duration"]
				if s == nil {
					return fmt.Errorf("it has no fly.Duration")
				}
				*s.Value = *openapi3.NewStringSchema()
				return nil
			}},
		{What: "the times of a check are texts",
			Why: "as for every duration: the document names the object once more, beside its reference",
			change: func(doc *openapi3.T) error {
				s := doc.Components.Schemas["fly.MachineCheck"]
				if s == nil {
					return fmt.Errorf("it has no fly.MachineCheck")
				}
				for _, p := range s.Value.Properties {
					if len(p.Value.AllOf) == 1 {
						*p.Value = *openapi3.NewStringSchema()
					}
				}
				return nil
			}},
		{What: "autostop of a service may be true or false, and force_instance_key null",
			Why: "a config is given back as it was sent, and the official client sends these; the document says itself that booleans are taken and given",
			change: func(doc *openapi3.T) error {
				s := doc.Components.Schemas["fly.MachineService"]
				if s == nil || s.Value.Properties["autostop"] == nil || s.Value.Properties["force_instance_key"] == nil {
					return fmt.Errorf("it has no fly.MachineService with the two")
				}
				*s.Value.Properties["autostop"] = *openapi3.NewSchemaRef("", openapi3.NewAnyOfSchema(openapi3.NewBoolSchema(), openapi3.NewStringSchema()))
				*s.Value.Properties["force_instance_key"] = *openapi3.NewSchemaRef("", openapi3.NewStringSchema().WithNullable())
				return nil
			}},
		{What: "secrets have the form that clients of today send and read",
			Why: "the document is of 2024-09; the official client has sent values and a version since a year later",
			change: func(doc *openapi3.T) error {
				for path := range doc.Paths.Map() {
					if strings.HasPrefix(path, "/apps/{app_name}/secrets") {
						doc.Paths.Delete(path)
					}
				}
				return nil
			}},
		{What: "errors have more members than error, and an answer to what has none to give has the body {\"ok\":true}",
			Why: "a program needs the code, a person the hint; additional members are allowed by the document"},
		{What: "statuses that the document does not name: 401, 403, 404, 409, 412, 413, 422, 429, 499, 500, 504",
			Why: "the document names successes only, and 400 here and there; docs/CLIENTS.md says what each means"},
		{What: "an app's ID is its name, and numbers beside names are made of them",
			Why: "the name is the identity; a second one could only disagree"},
	}
}
