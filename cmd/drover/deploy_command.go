package main

import (
	"context"
	"slices"
	"strings"

	"drover"
	"drover/client"
)

// releaseCommand is the command that a machine of a deploy runs.
func releaseCommand(i drover.DeployItem) string {
	if i.Config == nil {
		return ""
	}
	return strings.Join(commandOf(i.Config.Init), " ")
}

// commandLog shows what the command of a deploy writes, as it does; the last of it is in the deploy's record, since its machine goes at once.
type commandLog struct {
	*cli
	cl  *client.Client
	app drover.AppName

	next int64
	last *drover.LogLine
	// told: everything that it wrote has been shown.
	told bool
}

// tell shows what is new. A log that cannot be read now comes with the record.
func (l *commandLog) tell(ctx context.Context, p *progress, i drover.DeployItem) {
	if i.Action != drover.DeployRun || l.told {
		return
	}
	if i.LogRead {
		l.show(p, i.Machine, l.after(i.Log))
		l.told = true
		return
	}
	for i.Machine != "" && i.UnderWay() {
		logs, err := l.cl.Logs(ctx, l.app, i.Machine, client.LogsQuery{Offset: l.next})
		if err != nil || len(logs.Lines) == 0 {
			return
		}
		l.show(p, i.Machine, logs.Lines)
		l.next, l.last = logs.Next, &logs.Lines[len(logs.Lines)-1]
	}
}

// after are those of the last lines that were not shown.
func (l *commandLog) after(lines []drover.LogLine) []drover.LogLine {
	if l.last == nil {
		return lines
	}
	for k, line := range slices.Backward(lines) {
		if line.At.Equal(l.last.At) && strings.HasPrefix(l.last.Text, line.Text) {
			return lines[k+1:]
		}
	}
	return slices.DeleteFunc(slices.Clone(lines), func(line drover.LogLine) bool { return line.At.Before(l.last.At) })
}

func (l *commandLog) show(p *progress, machine drover.MachineID, lines []drover.LogLine) {
	for _, line := range lines {
		p.line("%s | %s", machine, line.Text)
	}
}
