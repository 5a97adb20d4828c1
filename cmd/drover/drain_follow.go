package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"drover"
	"drover/apiv1"
	"drover/client"
)

// followNewDrain shows the plan of a drain that was begun and follows it, unless it is to be detached.
func (c *cli) followNewDrain(ctx context.Context, cl *client.Client, d apiv1.Drain, detach bool) error {
	if detach {
		return c.printID(d.ID, d)
	}
	if !c.json {
		fmt.Fprintf(c.stderr, "drain %s of host %s: %d machines, %s, %s\n", d.ID, d.Host, d.Totals.Machines, sizeText(d.Totals.Bytes), expectedText(d.ExpectedSeconds))
	}
	return c.followDrain(ctx, cl, d.ID)
}

// followDrain follows a drain to its end and shows it. One that did not do all that was asked is an error.
func (c *cli) followDrain(ctx context.Context, cl *client.Client, id drover.DrainID) error {
	p := c.progress()
	states := map[drover.MachineID]drover.ItemState{}
	var m meter
	d, err := cl.FollowDrain(ctx, id, func(d apiv1.Drain) error {
		c.tellItems(p, d, states)
		t := d.Totals
		line := fmt.Sprintf("drain %s: %s, %s", d.State, countsText(t), sizeText(t.Copied))
		if rate := m.rate(d.AsOf, t.Copied); rate > 0 && t.InFlight > 0 {
			line += fmt.Sprintf(" (%s/s)", sizeText(rate))
		}
		if !d.Ended() && !d.ExpectedEnd.IsZero() && d.ExpectedEnd.After(d.AsOf) && d.Waits == "" {
			line += fmt.Sprintf(", %s left", roundSeconds(d.ExpectedEnd.Sub(d.AsOf).Seconds()))
		}
		if d.Waits != "" {
			line += ": waits: " + d.Waits
		}
		p.state(string(d.State)+d.Waits, "%s", line)
		return nil
	})
	p.clear()
	if drover.Is(err, drover.Canceled) {
		return drover.Errorf(drover.Canceled, "stopped following drain %s; it goes on by itself", id).
			WithHint("'drover drain show %s -f' follows it, 'drover drain pause %s' and 'drover drain abort %s' end it", id, id, id)
	}
	if err != nil {
		return err
	}
	if c.json {
		err = c.printJSON(d)
	} else {
		err = c.printDrain(d)
	}
	if err == nil && d.Problem != nil {
		return d.Problem
	}
	return err
}

// tellItems prints a line for each machine that has come to another state worth a line.
func (c *cli) tellItems(p *progress, d apiv1.Drain, states map[drover.MachineID]drover.ItemState) {
	for _, i := range d.Items {
		before, known := states[i.Machine]
		states[i.Machine] = i.State
		if !known || before == i.State {
			continue
		}
		switch {
		case i.State == drover.ItemMoving:
			p.line("machine %s (%s) goes to host %s by migration %s", i.Machine, i.Name, i.Target, i.Migration)
		case i.State == drover.ItemMoved:
			p.line("machine %s (%s) is on host %s%s", i.Machine, i.Name, i.Target, interruptedText(i))
		case i.State.Over():
			p.line("machine %s (%s) is %s: %s", i.Machine, i.Name, i.State, i.Reason)
		}
	}
}

func interruptedText(i drover.DrainItem) string {
	if i.Interruption == 0 {
		return ""
	}
	return ", interrupted for " + durationText(time.Duration(i.Interruption))
}

// printDrain shows a drain, or the plan of one.
func (c *cli) printDrain(d apiv1.Drain) error {
	ended, expected := "", ""
	if d.Ended() {
		ended = c.moment(d.EndedAt)
	} else if !d.ExpectedEnd.IsZero() {
		expected = d.ExpectedEnd.UTC().Format("2006-01-02 15:04:05 UTC")
		if d.State == drover.DrainPlanned {
			expected += ", " + expectedText(d.ExpectedSeconds)
		}
	}
	problem := ""
	if d.Problem != nil {
		problem = d.Problem.Text
	}
	if err := c.printFields([2]string{"ID", string(d.ID)}, [2]string{"Kind", string(d.Kind)}, [2]string{"Host", string(d.Host)}, [2]string{"State", string(d.State)},
		[2]string{"Waits", d.Waits}, [2]string{"Problem", problem}, [2]string{"By", d.Actor}, [2]string{"Reason", d.Reason}, [2]string{"Returns", string(d.Returns)},
		[2]string{"Machines", countsText(d.Totals)}, [2]string{"Bytes", bytesText(d)}, [2]string{"Begun", c.moment(d.StartedAt)}, [2]string{"Expected end", expected},
		[2]string{"Ended", ended}, [2]string{"Took", tookText(d)}, [2]string{"Stays", strings.Join(d.Stays, ", ")}); err != nil {
		return err
	}
	if len(d.Items) == 0 {
		return nil
	}
	if err := c.print("\n"); err != nil {
		return err
	}
	t := table{header: []string{"MACHINE", "NAME", "APP", "FROM", "TO", "MEMORY", "BYTES", "INTERRUPTION", "START", "END", "STATE", "WHY"},
		spare: []string{"APP", "MEMORY", "START", "NAME"}}
	for _, i := range d.Items {
		gap, start, end := "", i.StartedAt, i.EndedAt
		switch {
		case i.Interruption > 0:
			gap = durationText(time.Duration(i.Interruption))
		case !i.State.Over() && i.Running:
			gap = "~" + durationText(time.Duration(i.ExpectedInterruption))
		}
		if start.IsZero() && !i.State.Over() {
			start = i.ExpectedStart
		}
		if end.IsZero() && !i.State.Over() {
			end = i.ExpectedEnd
		}
		t.add(i.Machine, i.Name, i.App, i.Source, i.Target, fmt.Sprintf("%d MiB", i.MemoryMB), sizeText(i.Bytes), gap, clockText(start), clockText(end), i.State, i.Reason)
	}
	return c.printTable(t, "")
}

func clockText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("15:04:05")
}

func bytesText(d apiv1.Drain) string {
	if d.State == drover.DrainPlanned {
		return sizeText(d.Totals.Bytes)
	}
	return fmt.Sprintf("%s copied, of about %s", sizeText(d.Totals.Copied), sizeText(d.Totals.Bytes))
}

func movedText(d apiv1.Drain) string {
	return fmt.Sprintf("%d of %d", d.Totals.Moved, d.Totals.Machines)
}

func tookText(d apiv1.Drain) string {
	if !d.Ended() || d.StartedAt.IsZero() {
		return ""
	}
	return durationText(d.EndedAt.Sub(d.StartedAt))
}

func countsText(t drover.DrainTotals) string {
	parts := []string{fmt.Sprintf("%d of %d moved", t.Moved, t.Machines)}
	for _, p := range []struct {
		n    int
		text string
	}{{t.InFlight, "under way"}, {t.Waiting, "waiting"}, {t.NotMoved, "not moved"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.text))
		}
	}
	return strings.Join(parts, ", ")
}
