package volume

import (
	"testing"

	"drover"
)

func TestReach(t *testing.T) {
	ca := newCA(t)
	h1, h2 := newHost(t, ca, "h1"), newHost(t, ca, "h2")
	stranger := prepareHost(t, newCA(t), "h3")
	noErr(t, Reach(t.Context(), h1.cfg.TLSDir, "h2", h2.cfg.Listen))
	wantCode(t, Reach(t.Context(), h1.cfg.TLSDir, "h3", h2.cfg.Listen), drover.Denied)
	wantCode(t, Reach(t.Context(), stranger.cfg.TLSDir, "h2", h2.cfg.Listen), drover.Denied)
	h2.halt()
	wantCode(t, Reach(t.Context(), h1.cfg.TLSDir, "h2", h2.cfg.Listen), drover.Unavailable)
}
