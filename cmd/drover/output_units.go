package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"drover"
	"drover/internal/units"
)

// sizeText writes an amount in IEC units, with three digits that count.
func sizeText(b drover.Bytes) string { return units.Size(b) }

// parseSize reads an amount such as "512MiB" or "2GB"; a bare number is in the given unit. M, MB and MiB all mean 2^20 bytes, as
// in the API's own fields memory_mb and size_gb.
func parseSize(text string, unit drover.Bytes) (drover.Bytes, error) {
	number := strings.TrimRight(text, "BbIiKkMmGgTt ")
	suffix := strings.ToUpper(strings.TrimSpace(text[len(number):]))
	units := map[string]drover.Bytes{"": unit, "B": 1, "K": drover.KiB, "KB": drover.KiB, "KIB": drover.KiB, "M": drover.MiB, "MB": drover.MiB,
		"MIB": drover.MiB, "G": drover.GiB, "GB": drover.GiB, "GIB": drover.GiB, "T": 1 << 40, "TB": 1 << 40, "TIB": 1 << 40}
	scale, ok := units[suffix]
	value, err := strconv.ParseFloat(number, 64)
	size := value * float64(scale)
	if !ok || err != nil || !(size >= 1 && size <= 1<<60) { // so that NaN is refused too
		return 0, drover.Errorf(drover.Invalid, "%q is not a size; expected one such as 512MiB or 2GiB", text)
	}
	return drover.Bytes(size), nil
}

// durationText writes a duration with the digits that matter.
func durationText(d time.Duration) string { return units.Duration(d) }

// age writes how long ago a time was, in one unit; "-" for a time that is not known.
func (c *cli) age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := max(0, c.now().Sub(t))
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// moment writes a time with its age.
func (c *cli) moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s (%s ago)", t.UTC().Format("2006-01-02 15:04:05 UTC"), c.age(t))
}

// hydrationText says how far a background copy is.
func hydrationText(h *drover.Hydration) string {
	if h == nil {
		return ""
	}
	if h.Done {
		text := fmt.Sprintf("complete, %s copied", sizeText(h.Copied))
		if h.Lost > 0 {
			text += fmt.Sprintf(", %s LOST with its source", sizeText(h.Lost))
		}
		if h.Verified > 0 {
			text += fmt.Sprintf(", %s compared with the source's checksums", sizeText(h.Verified))
		}
		if h.Repaired > 0 {
			text += fmt.Sprintf(", %s of it fetched again", sizeText(h.Repaired))
		}
		return text
	}
	have := h.Copied + h.Skipped
	switch {
	case h.Paused:
		return fmt.Sprintf("%s of %s, paused", sizeText(have), sizeText(h.Total))
	case h.Stalled && h.Waiting != "":
		return fmt.Sprintf("%s of %s, stalled: %s", sizeText(have), sizeText(h.Total), h.Waiting)
	case h.Stalled:
		return fmt.Sprintf("%s of %s, stalled", sizeText(have), sizeText(h.Total))
	case h.Waiting != "":
		return fmt.Sprintf("%s of %s, waiting: %s", sizeText(have), sizeText(h.Total), h.Waiting)
	}
	text := ""
	if !h.TotalKnown || h.Total <= 0 {
		text = fmt.Sprintf("%s copied, %s/s", sizeText(have), sizeText(h.BytesPerSecond))
	} else {
		text = fmt.Sprintf("%d %%, %s", percent(h), transferText(have, h.Total, h.BytesPerSecond))
	}
	if h.Limit > 0 {
		text += fmt.Sprintf(", limit %s/s", sizeText(h.Limit))
	}
	return text
}

// transferText says how much of something was done, how fast it goes and how long it takes.
func transferText(have, total, perSecond drover.Bytes) string {
	text := fmt.Sprintf("%s of %s, %s/s", sizeText(have), sizeText(total), sizeText(perSecond))
	if perSecond > 0 {
		text += fmt.Sprintf(", about %s left", roundSeconds(float64(max(0, total-have))/float64(perSecond)))
	}
	return text
}

// seenText is transferText where the rate comes from a meter, and 0 means that it is not known yet.
func seenText(have, total, perSecond drover.Bytes) string {
	if perSecond > 0 {
		return transferText(have, total, perSecond)
	}
	return fmt.Sprintf("%s of %s", sizeText(have), sizeText(total))
}

// limitsText says what bounds a volume.
func limitsText(l drover.Limits) string {
	var parts []string
	if l.IOPS > 0 {
		parts = append(parts, fmt.Sprintf("%d operations/s", l.IOPS))
	}
	if l.BytesPerSecond > 0 {
		parts = append(parts, sizeText(l.BytesPerSecond)+"/s")
	}
	return strings.Join(parts, ", ")
}

// parseRate reads an amount per second such as "50MiB" or "50MiB/s"; "none" and "0" are no limit.
func parseRate(text string) (drover.Bytes, error) {
	if text == "none" || text == "0" {
		return 0, nil
	}
	rate, err := parseSize(strings.TrimSuffix(text, "/s"), drover.MiB)
	if err != nil {
		return 0, drover.Errorf(drover.Invalid, "%q is not a rate; expected one such as 50MiB, which is per second, or none", text)
	}
	return rate, nil
}

// until writes how long it is to a time, in one unit.
func (c *cli) until(t time.Time) string {
	d := max(0, t.Sub(c.now()))
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0fm", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0fh", d.Hours())
	}
	return fmt.Sprintf("%.0fd", d.Hours()/24)
}

// deadline writes a time to come with how far it is.
func (c *cli) deadline(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s (in %s)", t.UTC().Format("2006-01-02 15:04:05 UTC"), c.until(t))
}

// percent is how much of a copy is done; 100 only when it is known to be.
func percent(h *drover.Hydration) int {
	if h.Done {
		return 100
	}
	if h.Total <= 0 {
		return 0
	}
	return int(min(99, 100*float64(h.Copied+h.Skipped)/float64(h.Total)))
}

// roundSeconds writes an estimate without pretending to know more than it does.
func roundSeconds(seconds float64) string {
	if seconds < 60 {
		return fmt.Sprintf("%d s", int(math.Ceil(seconds)))
	}
	return durationText(time.Duration(min(seconds, 1e8)) * time.Second)
}

// intervalText writes a duration that somebody chose, without its zeroes.
func intervalText(d drover.Duration) string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
