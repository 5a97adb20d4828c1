package drover

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestConfigKeepsWhatItDoesNotKnow(t *testing.T) {
	in := `{"image":"a","guest":{"cpus":2},"dns":{"nameservers":["::1"]},"services":[{"ports":[{"port":80}]}],"stop_config":{"timeout":"7s"}}`
	var c MachineConfig
	if err := json.Unmarshal([]byte(in), &c); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"dns":{"nameservers":["::1"]}`, `"services":[{"ports":[{"port":80}]}]`, `"timeout":"7s"`, `"cpus":2`} {
		if !strings.Contains(string(out), part) {
			t.Errorf("%s is missing in %s", part, out)
		}
	}
}

func TestDurationReadsWhatClientsSend(t *testing.T) {
	for in, want := range map[string]time.Duration{`"1m30s"`: 90 * time.Second, `1000`: 1000, `{"Duration":"2s"}`: 2 * time.Second} {
		var d Duration
		if err := json.Unmarshal([]byte(in), &d); err != nil || time.Duration(d) != want {
			t.Errorf("%s is %v, %v", in, time.Duration(d), err)
		}
	}
	for _, in := range []string{`"soon"`, `true`, `[1]`} {
		var d Duration
		if json.Unmarshal([]byte(in), &d) == nil {
			t.Errorf("%s was taken", in)
		}
	}
}

// randomJSON makes a value that no type of ours knows: names and numbers as odd as JSON allows.
func randomJSON(r *rand.Rand, depth int) any {
	switch n := r.IntN(8); {
	case n == 0:
		return nil
	case n == 1:
		return r.IntN(2) == 0
	case n == 2:
		return []json.Number{"0", "-0", "1e400", "123456789012345678901234567890", "0.10", "1E+2"}[r.IntN(6)]
	case n == 3 && depth > 0:
		list := make([]any, r.IntN(3))
		for i := range list {
			list[i] = randomJSON(r, depth-1)
		}
		return list
	case n >= 4 && n <= 5 && depth > 0:
		object := map[string]any{}
		for range r.IntN(3) {
			object[fmt.Sprintf("x%d", r.IntN(9))] = randomJSON(r, depth-1)
		}
		return object
	}
	return []string{"", "a", "<ü\u2028\"", "null"}[r.IntN(4)]
}

// sprinkle adds fields that nobody knows to every object of a config, at every depth but in maps of names.
func sprinkle(r *rand.Rand, value any, named bool) any {
	switch v := value.(type) {
	case map[string]any:
		for name, in := range v {
			v[name] = sprinkle(r, in, name == "env" || name == "metadata" || name == "checks")
		}
		if !named {
			for range r.IntN(3) {
				v[fmt.Sprintf("new_%d", r.IntN(9))] = randomJSON(r, 3)
			}
		}
	case []any:
		for i := range v {
			v[i] = sprinkle(r, v[i], false)
		}
	}
	return value
}

// TestConfigKeepsUnknownFieldsAtEveryDepth is a property test: whatever fields are added anywhere to a config that uses all that is known, the
// config that is given back has the same content, number for number, also when it was stored and read several times.
func TestConfigKeepsUnknownFieldsAtEveryDepth(t *testing.T) {
	const known = `{"image":"a","guest":{"cpu_kind":"shared","cpus":2,"memory_mb":512,"kernel_args":["x=1"]},"env":{"A":"1"},
		"init":{"exec":["/a"],"tty":true,"swap_size_mb":64},"files":[{"guest_path":"/f","raw_value":"YQ==","mode":384},{"guest_path":"/g","secret_name":"S"}],
		"mounts":[{"volume":"vol_0123456789abcdef","path":"/d","name":"d"}],"restart":{"policy":"always","max_retries":3},"metadata":{"k":"v"},
		"processes":[{"cmd":["b"],"env":{"B":"2"},"env_from":[{"env_var":"C","field_ref":"id"}],"secrets":[{"env_var":"D"}]}],"stop_config":{"signal":"SIGTERM","timeout":"7s"},
		"services":[{"protocol":"tcp","internal_port":80,"autostop":false,"autostart":false,"min_machines_running":0,"force_instance_key":null,
			"ports":[{"port":443,"handlers":["tls","http"]},{"start_port":1000,"end_port":1001}],"concurrency":{"type":"requests","soft_limit":3,"hard_limit":9},
			"checks":[{"type":"http","port":80,"headers":[{"name":"X","values":["1"]}],"tls_skip_verify":true,"interval":"15s"}]}],
		"checks":{"up":{"type":"tcp","port":5,"grace_period":"1s"}},"auto_destroy":true,"schedule":"hourly","standbys":["0123456789abcd"],
		"containers":[],"statics":[{"guest_path":"/s"}],"size":"","dns":null}`
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var doc any
		read(t, []byte(known), &doc)
		in, err := json.Marshal(sprinkle(r, doc, false))
		if err != nil {
			t.Fatal(err)
		}
		out := in
		for range 2 {
			var c MachineConfig
			read(t, out, &c)
			if out, err = json.Marshal(c); err != nil {
				t.Fatal(err)
			}
		}
		var want, got any
		read(t, in, &want)
		read(t, out, &got)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: of\n%s\nis left\n%s", seed, in, out)
		}
	}
}

// read keeps numbers as they are written.
func read(t *testing.T, b []byte, into any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
}

func TestKeptFieldsDoNotOutliveTheirObject(t *testing.T) {
	var c MachineConfig
	read(t, []byte(`{"image":"a","auto_destroy":false,"services":[{"x":1},{"y":2}],"env":null}`), &c)
	c.Services, c.AutoDestroy = c.Services[:1], true
	out, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for part, wanted := range map[string]bool{`"x":1`: true, `"y"`: false, `"auto_destroy":true`: true, `"auto_destroy":false`: false, `"env":null`: true} {
		if strings.Contains(string(out), part) != wanted {
			t.Errorf("%s in the config: want %t: %s", part, wanted, out)
		}
	}
}

func TestServiceChecksHaveTheNamesThatClientsKnow(t *testing.T) {
	var c MachineConfig
	read(t, []byte(`{"checks":{"own":{"type":"tcp","port":1}},"services":[{"internal_port":8080,"checks":[{"type":"http"},{"type":"tcp","port":9}]},
		{"internal_port":53,"checks":[{"type":"tcp"}]}]}`), &c)
	var names []string
	for name, check := range c.AllChecks() {
		names = append(names, fmt.Sprintf("%s:%d", name, check.Port))
	}
	slices.Sort(names)
	want := []string{"own:1", "servicecheck-00-http-8080:8080", "servicecheck-01-tcp-9:9", "servicecheck-02-tcp-53:53"}
	if !slices.Equal(names, want) || len(c.Checks) != 1 {
		t.Errorf("checks %v, want %v", names, want)
	}
}
