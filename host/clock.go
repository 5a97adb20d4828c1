package host

import "time"

const (
	// retryMost is more than any wait between two starts of a machine.
	retryMost = 2 * backoffMax
	// sleepMost bounds how long a machine's loop waits for a time: a wait that was reckoned with a clock that is put right meanwhile must not last
	// for as long as the clock was wrong.
	sleepMost = time.Minute
)

// before reports whether it is to be waited for a time that was reckoned to be at most so far ahead. Times in the records are those of the wall
// clock. One that is further ahead was written while the clock was wrong, before it was put back: there is nothing to be waited for.
func (v view) before(at time.Time, most time.Duration) bool {
	ahead := at.Sub(v.now)
	return ahead > 0 && ahead <= most
}
