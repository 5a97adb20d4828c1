// Package units writes amounts and durations for people, in the one way in which Drover does so everywhere. It only writes: what people
// give is read where it is asked for.
package units

import (
	"fmt"
	"math"
	"time"

	"drover"
)

// Size writes an amount in IEC units, with three digits that count.
func Size(b drover.Bytes) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	value, unit := float64(b), 0
	for math.Abs(value) >= 1023.5 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	switch {
	case unit == 0 || value == math.Trunc(value) || math.Abs(value) >= 100:
		return fmt.Sprintf("%.0f %s", value, units[unit])
	case math.Abs(value) >= 10:
		return fmt.Sprintf("%.1f %s", value, units[unit])
	}
	return fmt.Sprintf("%.2f %s", value, units[unit])
}

// Duration writes a duration with the digits that matter.
func Duration(d time.Duration) string {
	switch {
	case d == math.MinInt64: // has no positive
		return Duration(d + 1)
	case d < 0:
		return "-" + Duration(-d)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// Clock writes the time of day in UTC, to the millisecond.
func Clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }
