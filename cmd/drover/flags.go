package main

import (
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"drover"
)

// flagError says what is wrong with a flag in words of the command line, not of the library that reads it.
func flagError(cmd *cobra.Command, err error) error {
	var value *pflag.InvalidValueError
	if errors.As(err, &value) {
		f := value.GetFlag()
		switch f.Value.Type() {
		case "int", "int64", "uint32":
			return usage(cmd, "--%s is %q; expected a whole number", f.Name, value.GetValue())
		case "duration":
			return usage(cmd, "--%s is %q; expected a span such as 90s or 12h", f.Name, value.GetValue())
		case "bool":
			return usage(cmd, "--%s is %q; expected true or false", f.Name, value.GetValue())
		}
		return usage(cmd, "--%s is %q: %w", f.Name, value.GetValue(), value.Unwrap())
	}
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "" {
		if near := nearFlags(cmd, unknown.GetSpecifiedName()); len(near) > 0 {
			return usage(cmd, "%w", err).WithHint("did you mean %s?", strings.Join(near, " or "))
		}
	}
	return usage(cmd, "%w", err)
}

// nearFlags are the flags of a command that are written much like a name; cobra knows that of commands.
func nearFlags(cmd *cobra.Command, name string) []string {
	names := &cobra.Command{SuggestionsMinimumDistance: 2}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
		}
	})
	near := names.SuggestionsFor(name)
	for k := range near {
		near[k] = "--" + near[k]
	}
	return near
}

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
