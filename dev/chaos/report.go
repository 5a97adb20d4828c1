package chaos

import "drover"

// Report is what a run ends with, as one line of JSON. Its fields are a contract: fields are only added.
type Report struct {
	Seed    uint64 `json:"seed"`
	Seconds int    `json:"seconds"`
	// Faults counts the faults that were made, Moves the migrations that succeeded, Drains the drains that ended by themselves.
	Faults int `json:"faults"`
	Moves  int `json:"moves"`
	Drains int `json:"drains"`
	// Acked counts the records that were acknowledged.
	Acked uint64 `json:"acked"`
	// Lost counts acknowledged records and blocks that are not there, Corrupt those that have another content, and whatever of a machine
	// changed that a user can name.
	Lost    uint64 `json:"lost"`
	Corrupt uint64 `json:"corrupt"`
	// TwoRunners counts times at which a machine ran in two places.
	TwoRunners int `json:"two_runners"`
	// Leftovers counts what was there at the end and should not be, and what should be there and was not.
	Leftovers int `json:"leftovers"`
}

// Verdict returns an error if a promise was broken.
func (r Report) Verdict() error {
	if r.Lost == 0 && r.Corrupt == 0 && r.TwoRunners == 0 && r.Leftovers == 0 {
		return nil
	}
	return drover.Errorf(drover.Internal, "promises were broken: %d lost, %d corrupt, %d times two runners, %d leftovers",
		r.Lost, r.Corrupt, r.TwoRunners, r.Leftovers).WithHint("the lines above say which; the same seed makes the same plan")
}
