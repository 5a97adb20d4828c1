package api

import (
	"drover"
	"drover/internal/shellwords"
)

// splitCommand splits a command that was written as one string.
func splitCommand(line string) ([]string, error) {
	words, err := shellwords.Split(line)
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "cmd is %q, which ends inside a quotation", line).WithField("cmd").
			WithHint("close the quotation, or give the arguments one by one in command")
	}
	return words, nil
}
