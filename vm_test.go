package drover_test

import (
	"testing"

	"drover"
)

func TestAttachmentOver(t *testing.T) {
	both := drover.Attachment{Transport: drover.TransportNBD, Socket: "/nbd", Export: "l@1", VhostSocket: "/vhost"}
	nbd := drover.Attachment{Transport: drover.TransportNBD, Socket: "/nbd", Export: "l@1"}
	vhost := drover.Attachment{Transport: drover.TransportVhost, Socket: "/vhost"}
	for _, c := range []struct {
		machine, host drover.Transport
		at, want      drover.Attachment
		code          drover.Code
	}{
		{"", "", both, vhost, ""},
		{"auto", "auto", both, vhost, ""},
		{"", "", nbd, nbd, ""}, // a storage daemon of an older version
		{"nbd", "vhost-user-blk", both, nbd, ""},
		{"vhost-user-blk", "nbd", both, vhost, ""},
		{"auto", "nbd", both, nbd, ""},
		{"vhost-user-blk", "", nbd, nbd, drover.Precondition},
	} {
		got, err := c.at.Over(drover.ChooseTransport(c.machine, c.host))
		if c.code != "" {
			if !drover.Is(err, c.code) {
				t.Errorf("%q on a host with %q: %v", c.machine, c.host, err)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%q on a host with %q: %+v, %v; want %+v", c.machine, c.host, got, err, c.want)
		}
	}
}
