package main

import (
	"time"

	"drover"
)

// durationFlag is a flag with a duration that has no default of its own.
type durationFlag struct{ d drover.Duration }

// String is the flag's default in its help: none.
func (f *durationFlag) String() string { return "" }

// Set reads a duration such as "12h".
func (f *durationFlag) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return drover.Errorf(drover.Invalid, "%q is not a duration; expected one such as 90s or 12h", text)
	}
	f.d = drover.Duration(d)
	return nil
}

// Type is what the help calls it.
func (f *durationFlag) Type() string { return "duration" }
