package fleet

import (
	"encoding/json"
	"testing"

	"drover"
)

// FuzzCheckConfig: a config is taken or refused as Invalid with the field that is wrong; it is never anything else.
func FuzzCheckConfig(f *testing.F) {
	for _, seed := range []string{`{}`, `{"image":"a"}`, `{"image":"a","env":{"a b":"x"},"mounts":[{"volume":"v","path":"/proc"}]}`,
		`{"image":"a","checks":{"x":{"type":"tcp","port":70000}},"restart":{"policy":"x","max_retries":-1}}`, `{"image":"a","metadata":{"drover.move":"x"}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c drover.MachineConfig
		if json.Unmarshal(data, &c) != nil {
			return
		}
		if err := checkConfig(c.WithDefaults(), len(data)); err != nil {
			if e := drover.AsError(err); e.Code != drover.Invalid || e.Field == "" {
				t.Fatalf("%s: %#v", data, e)
			}
		}
	})
}
