package main

import (
	"testing"

	"drover"
	"drover/apiv1"
)

func TestWhenASuspendingHasEnded(t *testing.T) {
	at := func(state drover.MachineState, reason string, event string) apiv1.Machine {
		return apiv1.Machine{ID: "m", State: state, Reason: reason, Events: []apiv1.Event{{ID: event}}}
	}
	before := at(drover.StateStarted, "it cannot be suspended, and runs on: the disk was full", "e1")
	for name, c := range map[string]struct {
		now   apiv1.Machine
		done  bool
		fails bool
	}{
		"nothing has happened": {before, false, false},
		"it is on its way":     {at(drover.StateSuspending, "", "e2"), false, false},
		"it is suspended":      {at(drover.StateSuspended, "", "e2"), true, false},
		"it cannot be":         {at(drover.StateStarted, "it cannot be suspended, and runs on: the disk is full", "e3"), false, true},
		"it has ended":         {at(drover.StateStopped, "", "e3"), false, true},
	} {
		done, err := isSuspended(before, c.now)
		if done != c.done || (err != nil) != c.fails {
			t.Errorf("%s: %v %v", name, done, err)
		}
	}
}
