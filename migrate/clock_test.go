package migrate

import (
	"testing"
	"time"

	"drover"
)

// A clock that is put back by ten minutes must not make the fleet wait for ten minutes before it asks again.
func TestAClockThatIsPutBackHoldsNothingUp(t *testing.T) {
	r := DefaultRules()
	now := start.Add(-10 * time.Minute)
	failed := Answer{}.Next(drover.Errorf(drover.Unavailable, "no answer"), start)
	for phase, order := range map[drover.Phase]drover.Order{drover.PhaseQuiesce: drover.OrderMoveQuiesce, drover.PhaseHydrate: drover.OrderMoveProgress} {
		host := map[drover.Order]drover.HostID{drover.OrderMoveQuiesce: source, drover.OrderMoveProgress: target}[order]
		for name, a := range map[string]Answer{"failed": failed, "well": Answer{}.Next(nil, start)} {
			if name == "well" && phase == drover.PhaseQuiesce {
				continue // then the phase is over
			}
			d := r.Next(record(phase), facts().with(order, host, a), now)
			if d.Kind != Ask || d.Order != order {
				t.Errorf("%s, the last answer %s: %+v", phase, name, d)
			}
		}
	}
}
