package api

import (
	"strings"

	"drover"
)

// splitCommand splits a command that was written as one string at its spaces, as a shell would that knows quotes and backslashes and
// nothing else: inside '…' everything stands for itself, inside "…" a backslash quotes " and \ only.
func splitCommand(line string) ([]string, error) {
	var (
		words  []string
		word   strings.Builder
		inWord bool
		quote  rune
		escape bool
	)
	for _, c := range line {
		switch {
		case escape:
			if quote == '"' && c != '"' && c != '\\' {
				word.WriteRune('\\')
			}
			word.WriteRune(c)
			escape = false
		case c == '\\' && quote != '\'':
			escape, inWord = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == ' ' || c == '\t' || c == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	if quote != 0 || escape {
		return nil, drover.Errorf(drover.Invalid, "cmd is %q, which ends inside a quotation", line).WithField("cmd").
			WithHint("close the quotation, or give the arguments one by one in command")
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
