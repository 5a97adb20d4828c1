package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"drover"
	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
)

// bodies are requests that are good but for what a test spoils, by operation; one that is not here begins with {}.
var bodies = map[string]string{
	"Machines_create":          `{"config":{"image":"debian"}}`,
	"Machines_update":          `{"config":{"image":"debian"}}`,
	"Machines_signal":          `{"signal":"SIGHUP"}`,
	"Machines_exec":            `{"command":["true"]}`,
	"Machines_update_metadata": `{"value":"web"}`,
	"Apps_set_metadata":        `{"value":"web"}`,
	"Apps_create":              `{"app_name":"spoilt"}`,
	"Volumes_create":           `{"name":"data","size_gb":1}`,
	"Volumes_extend":           `{"size_gb":3}`,
	"Volumes_set_hydration":    `{"paused":true}`,
	"Hosts_cordon":             `{"reason":"a fan is loud"}`,
	"Drains_create":            `{"host":"h1","reason":"kernel"}`,
	"Drains_plan":              `{"host":"h1","reason":"kernel"}`,
}

// operation is one operation of a document with what it takes to ask it.
type operation struct {
	id, method, path string
	body             *openapi3.Schema
}

// operationsOf lists a document's operations, in a fixed order.
func operationsOf(doc *openapi3.T) []operation {
	var all []operation
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			o := operation{id: op.OperationID, method: method, path: "/v1" + path}
			if op.RequestBody != nil {
				if content := op.RequestBody.Value.Content.Get("application/json"); content != nil {
					o.body = content.Schema.Value
				}
			}
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b operation) int { return strings.Compare(a.id, b.id) })
	return all
}

// fill puts things that exist into an operation's path.
func fill(path string, machine drover.MachineID, volume drover.VolumeID) string {
	return strings.NewReplacer("{app_name}", "ledger", "{machine_id}", string(machine), "{volume_id}", string(volume), "{host_id}", "h1", "{key}", "role",
		"{region}", "north", "{snapshot_id}", "vs_0000000000000001", "{migration_id}", "mig_0000000000000001", "{drain_id}", "drn_0000000000000001",
		"{recovery_id}", "rec_0000000000000001", "{standby_id}", "sby_0000000000000001").Replace(path)
}

// wrongFor lists values of types that a schema does not take.
func wrongFor(schema *openapi3.Schema) []any {
	object, array := map[string]any{"x": 1}, []any{"x"}
	switch {
	case schema.Type.Is("string") && strings.HasPrefix(schema.Description, "a duration"):
		return []any{true, array, "soon", "15"}
	case schema.Type.Is("string"):
		return []any{5, true, array, object}
	case schema.Type.Is("integer"):
		return []any{"x", true, 1.5, array, object, json.Number("99999999999999999999999")}
	case schema.Type.Is("number"):
		return []any{"x", true, array, object}
	case schema.Type.Is("boolean"):
		return []any{"perhaps", 5, array, object}
	case schema.Type.Is("array"):
		return []any{"x", 5, true, object}
	case schema.Type.Is("object"):
		return []any{"x", 5, true, array}
	}
	return nil // any value, or one of several types
}

// spoil calls fn with each field of a schema, its path, and a way to put a value there. seen keeps it from going round in circles.
func spoil(schema *openapi3.Schema, path string, depth int, fn func(path string, schema *openapi3.Schema)) {
	if depth > 6 {
		return
	}
	for _, part := range schema.AllOf {
		spoil(part.Value, path, depth+1, fn)
	}
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		at := strings.TrimPrefix(path+"."+name, ".")
		field := schema.Properties[name].Value
		fn(at, field)
		spoil(field, at, depth+1, fn)
	}
	if schema.Type.Is("array") && schema.Items != nil {
		fn(path+"[0]", schema.Items.Value)
		spoil(schema.Items.Value, path+"[0]", depth+1, fn)
	}
	if extra := schema.AdditionalProperties.Schema; extra != nil {
		fn(path+".k", extra.Value)
		spoil(extra.Value, path+".k", depth+1, fn)
	}
}

// put sets a value in a body, making what is on the way.
func put(body map[string]any, path string, value any) {
	var into any = value
	parts := strings.Split(path, ".")
	for i := len(parts) - 1; i > 0; i-- {
		name := parts[i]
		for strings.HasSuffix(name, "[0]") {
			name, into = strings.TrimSuffix(name, "[0]"), []any{into}
		}
		into = map[string]any{name: into}
	}
	name := parts[0]
	for strings.HasSuffix(name, "[0]") {
		name, into = strings.TrimSuffix(name, "[0]"), []any{into}
	}
	merge(body, name, into)
}

func merge(body map[string]any, name string, value any) {
	have, ok := body[name].(map[string]any)
	more, both := value.(map[string]any)
	if !ok || !both {
		body[name] = value
		return
	}
	for key, v := range more {
		merge(have, key, v)
	}
}

// refusalWorld is a server with an app of acme's that has a machine and a volume.
func refusalWorld(t *testing.T) (*server, drover.MachineID, drover.VolumeID) {
	t.Helper()
	s, _, m, _ := aMachine(t, api.Config{})
	v := decode[apiv1.Volume](t, s.want(200, "POST", "/v1/apps/ledger/volumes", `{"name":"data","size_gb":1}`))
	return s, m.ID, v.ID
}

func ownDocument(t *testing.T, s *server) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(s.want(200, "GET", "/v1/openapi.json", "").Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// asked sends a request without holding the answer against the documents, which the other tests do.
func (s *server) asked(o operation, path, token, body string) (int, apiv1.ErrorResponse, string) {
	s.tb.Helper()
	r := httptest.NewRequest(o.method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	var refusal apiv1.ErrorResponse
	if w.Code >= 400 {
		refusal = decode[apiv1.ErrorResponse](s.tb, w)
	}
	if w.Code >= 500 {
		s.tb.Errorf("%s %s %s: %d %s", o.method, path, body, w.Code, w.Body)
	}
	return w.Code, refusal, w.Body.String()
}

// TestEveryFieldOfAWrongTypeIsNamed spoils each field of each request that Drover's document describes.
func TestEveryFieldOfAWrongTypeIsNamed(t *testing.T) {
	s, machine, volume := refusalWorld(t)
	tried := 0
	for _, o := range operationsOf(ownDocument(t, s)) {
		if o.body == nil {
			continue
		}
		spoil(o.body, "", 0, func(path string, field *openapi3.Schema) {
			for _, wrong := range wrongFor(field) {
				body := spoilt(t, o, path, wrong)
				status, refusal, answer := s.asked(o, fill(o.path, machine, volume), apitest.OperatorToken, body)
				// What is wrong with a part is told of the part; a type that reads several forms tells it of the whole.
				if status != 400 || !strings.HasPrefix(refusal.Field, path) && !strings.HasPrefix(path, refusal.Field+".") && !strings.HasPrefix(path, refusal.Field+"[") {
					t.Errorf("%s with %s = %v: %d, field %q: %.200s", o.id, path, wrong, status, refusal.Field, answer)
				}
				tried++
			}
		})
	}
	if tried < 500 {
		t.Errorf("only %d were tried", tried)
	}
}

func spoilt(t *testing.T, o operation, path string, wrong any) string {
	t.Helper()
	body := map[string]any{}
	if text := bodies[o.id]; text != "" {
		if err := json.Unmarshal([]byte(text), &body); err != nil {
			t.Fatal(err)
		}
	}
	put(body, path, wrong)
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestNoFieldOfThePublishedDocumentBreaksAnything does the same with the fields of the published document: Drover may not know them, and then
// keeps or ignores them; it never fails.
func TestNoFieldOfThePublishedDocumentBreaksAnything(t *testing.T) {
	data, err := os.ReadFile(publishedPath())
	if err != nil {
		t.Skipf("no copy of the published Machines API document: %v", err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(data)
	if err != nil {
		t.Fatal(err)
	}
	s, machine, volume := refusalWorld(t)
	tried := 0
	for _, o := range operationsOf(doc) {
		if o.body == nil || strings.Contains(o.path, "/tokens") {
			continue
		}
		spoil(o.body, "", 0, func(path string, field *openapi3.Schema) {
			for _, wrong := range append(wrongFor(field), nil, -1, "", strings.Repeat("x", 5000)) {
				status, refusal, answer := s.asked(o, fill(o.path, machine, volume), apitest.OperatorToken, spoilt(t, o, path, wrong))
				if status >= 300 && (refusal.Error == "" || refusal.Message != refusal.Error || refusal.RequestID == "") {
					t.Errorf("%s with %s: %d %s", o.id, path, status, answer)
				}
				tried++
			}
		})
	}
	if tried < 1000 {
		t.Errorf("only %d were tried", tried)
	}
}

// TestEveryOperationRefusesWhatIsNotThere: an unknown app, machine or volume is 404, and so is one of another organisation, by the very same
// words; a body that is too large, too deep, no object or missing is refused by every operation that has one.
func TestEveryOperationRefusesWhatIsNotThere(t *testing.T) {
	s, machine, volume := refusalWorld(t)
	huge := `{"x":"` + strings.Repeat("x", 2<<20) + `"}`
	deep := `{"config":` + strings.Repeat(`{"a":`, 100) + `1` + strings.Repeat(`}`, 100) + `}`
	for _, o := range operationsOf(ownDocument(t, s)) {
		body, path := bodies[o.id], fill(o.path, machine, volume)
		if body == "" && o.body != nil {
			body = "{}"
		}
		if strings.Contains(o.path, "{app_name}") {
			there, _, hidden := s.asked(o, path, apitest.OtherToken, body)
			nowhere, _, missing := s.asked(o, strings.Replace(path, "/ledger", "/nowhere", 1), apitest.OtherToken, body)
			if there != 404 || nowhere != 404 || normal(hidden, "ledger") != normal(missing, "nowhere") {
				t.Errorf("%s tells that the app exists: %d %s, %d %s", o.id, there, hidden, nowhere, missing)
			}
		}
		for name, unknown := range map[string]string{"{machine_id}": "0123456789abcd", "{volume_id}": "vol_0123456789abcdef"} {
			if !strings.Contains(o.path, name) {
				continue
			}
			for _, id := range []string{unknown, "nonsense", "..%2f..%2f", strings.Repeat("x", 3000)} {
				path := fill(strings.Replace(o.path, name, id, 1), machine, volume)
				if status, refusal, answer := s.asked(o, path, apitest.AcmeToken, body); status != 404 || refusal.Code != drover.NotFound {
					t.Errorf("%s with %.40s: %d %.200s", o.id, id, status, answer)
				}
			}
		}
		if o.body == nil {
			continue
		}
		for bad, want := range map[string]int{huge: 413, deep: 400, `[]`: 400, `"x"`: 400, `null`: 400, `{`: 400, `{}{}`: 400, "\x00": 400, `{"a":1,}`: 400} {
			if status, _, answer := s.asked(o, path, apitest.OperatorToken, bad); status != want {
				t.Errorf("%s with %.20q: %d, want %d: %.200s", o.id, bad, status, want, answer)
			}
		}
	}
}

// normal takes out of an answer what differs between two of the same kind.
func normal(answer, app string) string {
	var r apiv1.ErrorResponse
	if err := json.Unmarshal([]byte(answer), &r); err != nil {
		return fmt.Sprint(err, answer)
	}
	r.RequestID = ""
	return strings.ReplaceAll(fmt.Sprintf("%+v", r), app, "APP")
}
