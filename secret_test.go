package drover

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestASecretWritesItselfNowhere(t *testing.T) {
	v := NewSecretValue("hunter2")
	set := SecretValues{Version: 3, Values: map[string]SecretValue{"A": v}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+verb+verb+"\n", v, &v, set)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("it", "value", v, "set", set)
	slog.New(slog.NewTextHandler(&out, nil)).Info("it", "value", v, "set", set)
	data, err := json.Marshal(struct {
		V SecretValue
		S SecretValues
	}{v, set})
	out.Write(data)
	if err != nil || strings.Contains(out.String(), "hunter") || strings.Contains(out.String(), "68756e746572") || !strings.Contains(out.String(), redacted) {
		t.Errorf("%s, %v", out.String(), err)
	}
	coded, err := set.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeSecretValues(coded); err != nil || got.Version != 3 || got.Values["A"].Reveal() != "hunter2" {
		t.Errorf("%v", err)
	}
	if _, err := DecodeSecretValues([]byte(`{"values":{"A":["hunter2"]}}`)); err == nil || strings.Contains(err.Error(), "hunter") {
		t.Errorf("%v", err)
	}
}
