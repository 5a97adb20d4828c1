package api

import (
	"net/url"
	"strconv"
	"time"

	"drover"
)

// queryBool reads a parameter that is true or false; absent means false.
func queryBool(q url.Values, name string) (bool, error) {
	text := q.Get(name)
	if text == "" {
		return false, nil
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return false, drover.Errorf(drover.Invalid, "%s is %q; expected true or false", name, text).WithField(name)
	}
	return v, nil
}

// queryInt reads a whole number from least to most; absent means the given value.
func queryInt(q url.Values, name string, absent, least, most int64) (int64, error) {
	text := q.Get(name)
	if text == "" {
		return absent, nil
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v < least || v > most {
		return 0, drover.Errorf(drover.Invalid, "%s is %q; expected a whole number from %d to %d", name, text, least, most).WithField(name)
	}
	return v, nil
}

// queryDuration reads a duration from 0 to most, such as "20s"; a bare number is seconds. Absent means 0.
func queryDuration(q url.Values, name string, most time.Duration) (time.Duration, error) {
	text := q.Get(name)
	if text == "" {
		return 0, nil
	}
	withUnit := text
	if _, err := strconv.ParseInt(text, 10, 64); err == nil {
		withUnit += "s"
	}
	v, err := time.ParseDuration(withUnit)
	if err != nil || v < 0 || v > most {
		return 0, drover.Errorf(drover.Invalid, "%s is %q; expected a duration from 0s to %s", name, text, most).WithField(name)
	}
	return v, nil
}
