package fleet

import (
	"strings"
	"testing"

	"drover"
)

// TestWhatIsTooLongInALabelIsNamed: the key or the value, whichever it is.
func TestWhatIsTooLongInALabelIsNamed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ key, value, field, text string }{
		{"", "x", "key", "has 0 bytes; expected 1 to 253"},
		{strings.Repeat("k", 254), "x", "key", "has 254 bytes; expected 1 to 253"},
		{"role", strings.Repeat("v", 4097), "value", `value: that of "role" has 4097 bytes; expected 4096 at most`},
	} {
		_, err := setLabel(nil, c.key, c.value)
		wantError(t, err, drover.Invalid, c.field, "")
		if err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%.20q=%.20q: %v", c.key, c.value, err)
		}
	}
}
