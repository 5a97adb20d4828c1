package netdev

import (
	"testing"

	"drover"
)

// A guest that has moved sends to the gateway's address that it learnt on another host.
func TestTheGatewaysAddressMovesWithTheMachine(t *testing.T) {
	for _, id := range []drover.MachineID{"3d8d9c2b7e0a15", "3d8d9c2b7e0a16"} {
		mac := tapMAC(id)
		if mac.String() != tapMAC(id).String() || mac.String() == id.MAC() || len(mac) != 6 || mac[0]&3 != 2 {
			t.Errorf("machine %s: %s", id, mac)
		}
	}
	if tapMAC("3d8d9c2b7e0a15").String() == tapMAC("3d8d9c2b7e0a16").String() {
		t.Error("two machines have one address")
	}
}
