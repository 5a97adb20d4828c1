package drover

import "testing"

func TestTraceIDsAreDerived(t *testing.T) {
	trace, span := TraceOf("mig_6f1c0a53e9b2d784"), SpanOf("mig_6f1c0a53e9b2d784")
	// Links to traces are kept elsewhere: these never change.
	if trace != "989dcb43c66542ab0ced807109b0be27" || span != "8470c09c1d4e34e6" {
		t.Errorf("%s %s", trace, span)
	}
	seen := map[SpanID]bool{}
	for _, s := range []SpanID{span, SpanOf("mig_6f1c0a53e9b2d785"), SpanOf("mig_6f1c0a53e9b2d784", "step", "1"), SpanOf("mig_6f1c0a53e9b2d784", "step", "11"),
		SpanOf("mig_6f1c0a53e9b2d784", "step1", ""), SpanOf("mig_6f1c0a53e9b2d784", "step", "1", "wait", "1")} {
		if seen[s] {
			t.Errorf("%s is there twice", s)
		}
		seen[s] = true
	}
}
