package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"drover"
)

// watchInterval is the pause between two looks of --watch.
const watchInterval = 2 * time.Second

// addWatch gives every command that lists or shows something the flag --watch.
func addWatch(c *cli, cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		addWatch(c, sub)
	}
	if !slices.Contains([]string{"list", "show", "events", "ps"}, cmd.Name()) || cmd.RunE == nil {
		return
	}
	watch := false
	cmd.Flags().BoolVar(&watch, "watch", false, "look again every 2 s and show what has changed, until Ctrl-C")
	once := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !watch {
			return once(cmd, args)
		}
		return c.watch(cmd.Context(), func() error { return once(cmd, args) })
	}
}

// watch runs a command again and again and shows its output when it is another one: on a terminal in the place of the last, elsewhere after it. A
// fleet that does not answer is waited for.
func (c *cli) watch(ctx context.Context, once func() error) error {
	out := c.stdout
	defer func() { c.stdout = out }()
	tick := time.NewTicker(cmp.Or(c.interval, watchInterval))
	defer tick.Stop()
	var last []byte
	for first := true; ; first = false {
		var b bytes.Buffer
		c.stdout = &b
		err := once()
		c.stdout = out
		switch {
		case drover.Is(err, drover.Canceled) && ctx.Err() != nil:
			return &exitError{code: exitCode(drover.Canceled)}
		case drover.Is(err, drover.Unavailable) && !first:
			fmt.Fprintf(&b, "%s\n", drover.AsError(err).Text)
		case err != nil:
			return err
		}
		if !bytes.Equal(b.Bytes(), last) {
			head := ""
			if c.fit && !c.json {
				head = "\x1b[H\x1b[2J" // the terminal's first line, and nothing below
			} else if !first && !c.json {
				head = "\n"
			}
			last = b.Bytes()
			if err := c.print("%s%s", head, last); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return &exitError{code: exitCode(drover.Canceled)} // Ctrl-C is how it ends
		}
	}
}
