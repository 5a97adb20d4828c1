package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"drover"
	"drover/fleet"
)

// jsonCommands are commands and what they are run with; a word in capitals is replaced by the ID of a thing of the kind.
var jsonCommands = []string{
	"app list", "app show ledger", "app create other",
	"machine list -a ledger", "machine show MACHINE", "machine events MACHINE", "machine logs MACHINE", "machine create debian -a ledger -d",
	"machine stop MACHINE", "machine start MACHINE", "machine exec MACHINE -- true", "machine check-move MACHINE",
	"volume list -a ledger", "volume show VOLUME", "volume create more -a ledger --size 1GiB",
	"volume snapshot create VOLUME", "volume snapshot list VOLUME",
	"host list", "host show h1", "host cordon h2 --reason test", "host uncordon h2", "host layers h1",
	"machine move MACHINE -d", "migration list", "migration show MIGRATION",
	"host drain h1 --reason test -d", "drain list", "drain show DRAIN",
	"deploy list -a ledger", "deploy show -a ledger", "deploy abort -a ledger", "logs -a ledger", "exec MACHINE -- true",
}

// TestJSONContract holds docs/JSON.md against what the commands print: one value each, with the fields that the document lists. -update adds fields
// to the document, and never takes one away.
func TestJSONContract(t *testing.T) {
	const path = "../../docs/JSON.md"
	document, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	documented := contractOf(string(document))
	backend, r, id := prepared(t)
	v, err := backend.CreateVolume(t.Context(), fleet.CreateVolume{App: "ledger", Name: "data", Size: drover.GiB})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backend.CreateDeploy(t.Context(), fleet.StartDeploy{App: "ledger", Text: "x", Items: []drover.DeployItem{{Action: drover.DeployRestart, Machine: id}}}); err != nil {
		t.Fatal(err)
	}
	backend.Log("line")
	ids := map[string]string{"MACHINE": string(id), "VOLUME": string(v.Volume.ID)}
	now := map[string]contract{}
	for _, line := range jsonCommands {
		args := strings.Fields(line)
		for k, a := range args {
			if real, ok := ids[a]; ok {
				args[k] = real
			}
		}
		got := r.run(t.Context(), append([]string{"--json"}, args...)...)
		if got.code != 0 {
			t.Errorf("%s: %+v", line, got)
			continue
		}
		c, first := shapeOf(t, line, got.stdout)
		now[line] = c
		for kind, prefix := range map[string]string{"MIGRATION": "mig_", "DRAIN": "drn_"} {
			if text, ok := first["id"].(string); ok && strings.HasPrefix(text, prefix) {
				ids[kind] = text
			}
		}
		for _, field := range documented[line].fields {
			if !slices.Contains(c.fields, field) {
				t.Errorf("%s prints no field %q any more; scripts rely on it", line, field)
			}
		}
	}
	text := describeContract(string(document), now)
	if *update && !t.Failed() {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if text != string(document) {
		t.Error("docs/JSON.md is not what the commands print: run this test with -update")
	}
}

// contract is what a command prints: object, array or lines, and the fields of (one of) the objects.
type contract struct {
	form   string
	fields []string
}

// shapeOf reads what a command has printed.
func shapeOf(t *testing.T, line, text string) (contract, map[string]any) {
	t.Helper()
	var values []any
	for d := json.NewDecoder(bytes.NewReader([]byte(text))); d.More(); {
		var v any
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%s does not print JSON: %v\n%s", line, err, text)
		}
		values = append(values, v)
	}
	if len(values) != 1 && !strings.Contains(line, "logs") {
		t.Fatalf("%s prints %d values; expected one", line, len(values))
	}
	c := contract{form: "an object"}
	if strings.Contains(line, "logs") {
		c.form = "an object for each line"
	}
	objects := values
	if list, ok := values[0].([]any); ok {
		c.form, objects = "an array of objects", list
	}
	fields, first := map[string]bool{}, map[string]any{}
	for k, o := range objects {
		members, ok := o.(map[string]any)
		if !ok {
			t.Fatalf("%s prints %T; expected objects", line, o)
		}
		if k == 0 {
			first = members
		}
		for name := range members {
			fields[name] = true
		}
	}
	c.fields = slices.Sorted(maps.Keys(fields))
	return c, first
}

var contractLine = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\| ([^|]*) \\|$")

// contractOf reads the document's table.
func contractOf(document string) map[string]contract {
	all := map[string]contract{}
	for _, m := range contractLine.FindAllStringSubmatch(document, -1) {
		all[m[1]] = contract{m[2], strings.FieldsFunc(m[3], func(r rune) bool { return r == ' ' || r == '`' })}
	}
	return all
}

const contractHead = "| command | prints | fields |\n| --- | --- | --- |\n"

// describeContract writes the table anew.
func describeContract(document string, now map[string]contract) string {
	before, _, _ := strings.Cut(document, contractHead)
	var b strings.Builder
	b.WriteString(before + contractHead)
	for _, line := range jsonCommands {
		c := now[line]
		fmt.Fprintf(&b, "| `%s` | %s |", line, c.form)
		for _, field := range c.fields {
			fmt.Fprintf(&b, " `%s`", field)
		}
		b.WriteString(" |\n")
	}
	return b.String()
}
