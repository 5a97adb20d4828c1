package drover

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestConfigKeepsWhatItDoesNotKnowAtAnyDepth(t *testing.T) {
	in := `{"IMAGE":"a","guest":{"cpus":2,"gpus":1,"big":12345678901234567890},"init":{"cmd":["x"],"swap_size_mb":64},"env":{"A":"b"},
		"mounts":[{"volume":"v","path":"/a","encrypted":true},{"volume":"w","path":"/b"}],"checks":{"up":{"type":"tcp","port":1,"interval":"5s","kind":"readiness"}},
		"restart":{"policy":"no","gpu":null},"stop_config":{"timeout":{"Duration":5}},"services":[{"force_instance_key":null}]}`
	var c MachineConfig
	if err := json.Unmarshal([]byte(in), &c); err != nil {
		t.Fatal(err)
	}
	c.Image, c.Guest.CPUs = "b", 4 // what is known is what counts
	out, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"gpus":1`, `"big":12345678901234567890`, `"swap_size_mb":64`, `"encrypted":true`, `"kind":"readiness"`, `"gpu":null`,
		`[{"force_instance_key":null}]`, `"image":"b"`, `"cpus":4`} {
		if strings.Count(string(out), part) != 1 {
			t.Errorf("%s is not once in %s", part, out)
		}
	}
	if strings.Contains(string(out), "IMAGE") || strings.Contains(string(out), "Duration") || strings.Contains(string(out), `{"encrypted":true},`) {
		t.Errorf("what is known was kept as unknown: %s", out)
	}
}

// FuzzMachineConfig: whatever is read is written as something that is read as the same.
func FuzzMachineConfig(f *testing.F) {
	for _, seed := range []string{`null`, `{}`, `{"image":"a","guest":{"gpus":1}}`, `{"mounts":[{"x":1},null]}`, `{"checks":{"a":null,"b":{"x":[{}]}}}`, `{"env":{"a":null}}`,
		`{"Guest":{"CPUS":1},"guest":{"x":1}}`, `{"stop_config":{"timeout":{"time.Duration":7}}}`, `{"a":1e400}`, `{"init":[]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c MachineConfig
		if json.Unmarshal(data, &c) != nil {
			return
		}
		once, err := json.Marshal(c.WithDefaults())
		if err != nil {
			t.Fatalf("%s was read and cannot be written: %v", data, err)
		}
		var again MachineConfig
		if err := json.Unmarshal(once, &again); err != nil {
			t.Fatalf("%s was written and cannot be read: %v", once, err)
		}
		twice, err := json.Marshal(again)
		if err != nil || string(once) != string(twice) {
			t.Fatalf("%s became %s, %v", once, twice, err)
		}
	})
}
