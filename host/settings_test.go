package host

import (
	"testing"
	"time"

	"drover"
)

func TestStorageSettingsAreToldAfterARestart(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		h := w.host["h1"]
		h.up(0)
		pass(time.Second)
		told := func() drover.StorageSettings {
			return insist[drover.HostInfo](h, drover.OrderInfo, drover.Empty{}).Storage
		}
		if got := told(); got != (drover.StorageSettings{}) {
			t.Errorf("a new host tells of %+v", got)
		}
		want := drover.StorageSettings{HydrationLimit: drover.MiB, StallAfter: drover.Duration(time.Minute)}
		if err := h.agent.rememberStorage(want); err != nil {
			t.Fatal(err)
		}
		h.down()
		h.up(0)
		pass(time.Second)
		if got := told(); got != want {
			t.Errorf("after a restart it tells of %+v", got)
		}
	})
}
