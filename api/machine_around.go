package api

import (
	"cmp"
	"slices"

	"drover"
	"drover/apiv1"
)

func (h *handler) cordonMachine(c *call) (any, error)   { return h.markMachine(c, true) }
func (h *handler) uncordonMachine(c *call) (any, error) { return h.markMachine(c, false) }

func (h *handler) markMachine(c *call, cordoned bool) (any, error) {
	id, err := machineID(c)
	if err != nil {
		return nil, err
	}
	_, err = h.backend.CordonMachine(c.ctx(), c.app.Name, id, cordoned)
	return apiv1.OK{OK: true}, machineGone(c, err)
}

func (h *handler) showMetadata(c *call) (any, error) {
	view, err := h.machine(c)
	if err != nil {
		return nil, err
	}
	if view.Machine.Config.Metadata == nil {
		return map[string]string{}, nil
	}
	return view.Machine.Config.Metadata, nil
}

func (h *handler) setMetadata(c *call) (any, error) {
	var req apiv1.LabelRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	return h.putMetadata(c, req.Value)
}

func (h *handler) deleteMetadata(c *call) (any, error) { return h.putMetadata(c, "") }

// putMetadata sets one entry; an empty value removes it.
func (h *handler) putMetadata(c *call, value string) (any, error) {
	view, err := h.machine(c)
	if err != nil {
		return nil, err
	}
	_, err = h.backend.SetMachineLabel(c.ctx(), c.app.Name, view.Machine.ID, c.r.PathValue("key"), value)
	return nil, err
}

func (h *handler) listVersions(c *call) (any, error) {
	view, err := h.machine(c)
	if err != nil {
		return nil, err
	}
	versions, err := h.backend.Versions(c.ctx(), c.app.Name, view.Machine.ID)
	if err != nil {
		return nil, machineGone(c, err)
	}
	forms := []apiv1.MachineVersion{}
	for _, v := range versions {
		form := apiv1.MachineVersion{Version: v.Instance, InstanceID: v.Instance, UserConfig: v.Config, ImageRef: v.Image, Status: string(view.Status.State),
			Replaced: !v.ReplacedAt.IsZero(), CreatedAt: v.CreatedAt, ReplacedAt: v.ReplacedAt}
		if form.Replaced {
			form.Status = apiv1.StatusReplaced
		}
		forms = append(forms, form)
	}
	return forms, nil
}

// processOrder has what processes can be sorted by.
var processOrder = map[string]func(a, b drover.Process) int{
	"pid":       func(a, b drover.Process) int { return cmp.Compare(a.PID, b.PID) },
	"stime":     func(a, b drover.Process) int { return cmp.Compare(a.STime, b.STime) },
	"rtime":     func(a, b drover.Process) int { return cmp.Compare(a.RTime, b.RTime) },
	"cpu":       func(a, b drover.Process) int { return cmp.Compare(a.CPU, b.CPU) },
	"rss":       func(a, b drover.Process) int { return cmp.Compare(a.RSS, b.RSS) },
	"command":   func(a, b drover.Process) int { return cmp.Compare(a.Command, b.Command) },
	"directory": func(a, b drover.Process) int { return cmp.Compare(a.Directory, b.Directory) },
}

func (h *handler) listProcesses(c *call) (any, error) {
	q := c.r.URL.Query()
	by := cmp.Or(q.Get("sort_by"), "pid")
	compare, ok := processOrder[by]
	if !ok {
		return nil, badField("sort_by", "is %q; expected pid, stime, rtime, cpu, rss, command or directory", by)
	}
	descending, err := queryOrder(q)
	if err != nil {
		return nil, err
	}
	view, err := h.machine(c)
	if err != nil {
		return nil, err
	}
	list, err := h.backend.Processes(c.ctx(), c.app.Name, view.Machine.ID)
	if err != nil {
		return nil, err
	}
	processes := append([]drover.Process{}, list...)
	for i := range processes {
		if processes[i].ListenSockets == nil {
			processes[i].ListenSockets = []drover.ListenSocket{}
		}
	}
	slices.SortStableFunc(processes, compare)
	if descending {
		slices.Reverse(processes)
	}
	return processes, nil
}
