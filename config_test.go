package drover

import (
	"encoding/json"
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
