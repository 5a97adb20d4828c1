package api

import (
	"maps"
	"slices"
	"time"

	"drover"
	"drover/apiv1"
	"drover/fleet"
	"drover/waterfall"
)

// machineForm writes a machine as the API does. Lists are never null, which clients written in other languages rely on.
func machineForm(v fleet.MachineView) apiv1.Machine {
	m, s := v.Machine, v.Status
	form := apiv1.Machine{
		ID:         m.ID,
		Name:       m.Name,
		App:        m.App,
		State:      s.State,
		Region:     m.Region,
		ImageRef:   m.Image,
		InstanceID: m.Instance,
		Version:    m.Instance,
		PrivateIP:  m.Address,
		CreatedAt:  m.CreatedAt,
		UpdatedAt:  latest(m.UpdatedAt, s.UpdatedAt),
		Events:     eventForms(s.Events),
		Checks:     checkForms(v),
		HostStatus: machineHostStatus(v),
		Cordoned:   m.Cordoned,
		Nonce:      v.Nonce,
		Host:       v.Placement.Host,
		Epoch:      v.Placement.Epoch,
		Goal:       m.Goal,
		Restarts:   s.Restarts,
		ExitCode:   s.ExitCode,
		Reason:     s.Reason,
		StartedAt:  s.StartedAt,
		StoppedAt:  s.StoppedAt,

		SecretsVersion: s.SecretsVersion,
		SkipSecrets:    m.SkipSecrets,
	}
	if form.HostStatus == drover.HostOK {
		form.Config = m.Config
	} else {
		form.IncompleteConfig, form.HostSeenAt = &m.Config, v.HostSeenAt
	}
	if v.Migration != nil {
		form.Migration = &apiv1.MachineMigration{ID: v.Migration.ID, Phase: v.Migration.Phase, Target: v.Migration.Target}
	}
	return form
}

// hostStatus gives what has no host, not yet or no longer, a word of the Machines API.
func hostStatus(s drover.HostStatus) drover.HostStatus {
	if s == "" {
		return drover.HostUnknown
	}
	return s
}

// machineHostStatus is hostStatus of a machine: of one that is destroyed everything is known, though it has no host.
func machineHostStatus(v fleet.MachineView) drover.HostStatus {
	if v.HostStatus == "" && v.Status.State == drover.StateDestroyed {
		return drover.HostOK
	}
	return hostStatus(v.HostStatus)
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// eventForms writes events with the newest first.
func eventForms(events []drover.Event) []apiv1.Event {
	forms := []apiv1.Event{}
	for _, e := range slices.Backward(events) {
		forms = append(forms, apiv1.Event{ID: e.ID, Type: e.Type, Status: e.Status, Source: eventSource(e.Source), Timestamp: e.At.UnixMilli(),
			Request: eventRequest(e), Text: e.Text})
	}
	return forms
}

// eventSource names who did it as clients of the Machines API know it: the user, or flyd for all that the platform does.
func eventSource(source string) string {
	if source == "user" {
		return source
	}
	return "flyd"
}

// eventRequest adds to an exit the exit_event in which clients of the Machines API look for the exit code.
func eventRequest(e drover.Event) map[string]any {
	code, ok := e.Request["exit_code"]
	if _, has := e.Request["exit_event"]; e.Type != "exit" || !ok || has {
		return e.Request
	}
	request := maps.Clone(e.Request)
	request["exit_event"] = map[string]any{"exit_code": code, "exited_at": e.At.UTC().Format(time.RFC3339Nano)}
	return request
}

// checkForms lists a check that was never made as critical: a client that finds no checks believes there are none.
func checkForms(v fleet.MachineView) []drover.CheckStatus {
	forms := []drover.CheckStatus{}
	forms = append(forms, v.Status.Checks...)
	for _, name := range slices.Sorted(maps.Keys(v.Machine.Config.AllChecks())) {
		if !slices.ContainsFunc(forms, func(c drover.CheckStatus) bool { return c.Name == name }) {
			forms = append(forms, drover.CheckStatus{Name: name, Status: "critical", Output: "not checked yet", UpdatedAt: v.Machine.UpdatedAt})
		}
	}
	return forms
}

func hostForm(h drover.HostInfo) drover.HostInfo {
	if h.Roles == nil {
		h.Roles = []drover.Role{}
	}
	return h
}

func migrationForm(m drover.Migration, now time.Time) apiv1.Migration {
	if m.Disks == nil {
		m.Disks = []drover.DiskMove{}
	}
	if m.Steps == nil {
		m.Steps = []drover.Step{}
	}
	m.Handover = nil // between hosts
	form := apiv1.Migration{Migration: m, TraceID: waterfall.TraceOf(m), AsOf: now.UTC()}
	if !m.StoppedAt.IsZero() && !m.RunningAt.IsZero() {
		ms := m.RunningAt.Sub(m.StoppedAt).Milliseconds()
		form.InterruptionMS = &ms
	}
	return form
}
