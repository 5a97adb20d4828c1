package migrate

import (
	"slices"
	"time"

	"drover"
)

// The functions in this file note in a record what is only for looking at: nothing is decided by it.

// noteWait notes in a step that it has waited for something from one time to another. A wait that began when the last one did is that one going on.
func noteWait(s *drover.Step, text string, since, now time.Time) {
	s.Waits = slices.Clone(s.Waits)
	w := drover.Wait{From: since, Until: now, For: text}
	last := len(s.Waits) - 1
	switch {
	case last >= 0 && s.Waits[last].From.Equal(since):
		s.Waits[last] = w
	case len(s.Waits) < drover.MaxStepWaits:
		s.Waits = append(s.Waits, w)
	default:
		s.Waits[last].Until, s.Waits[last].For = now, text
	}
}

// Answered notes that a host answered an order well. What hosts are asked about their progress is left out: it is asked again and again.
func Answered(m drover.Migration, order drover.Order, host drover.HostID, began, now time.Time) drover.Migration {
	if order == drover.OrderMoveProgress {
		return m
	}
	return withStep(m, func(s *drover.Step) {
		if len(s.Orders) < drover.MaxStepOrders {
			s.Orders = append(slices.Clone(s.Orders), drover.StepOrder{Order: order, Host: host, StartedAt: began, EndedAt: now})
		}
	})
}
