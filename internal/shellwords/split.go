// Package shellwords splits commands into words.
package shellwords

import (
	"fmt"
	"strings"
)

// Split splits a command that was written as one text at its spaces, as a shell would that knows quotes and backslashes and nothing else: inside '…'
// everything stands for itself, inside "…" a backslash quotes " and \ only. An error when it ends inside a quotation.
func Split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, escaped := false, false
	quote := rune(0)
	for _, r := range line {
		switch {
		case escaped:
			if quote == '"' && r != '"' && r != '\\' {
				word.WriteRune('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("%q ends inside a quotation", line)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
