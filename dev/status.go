package dev

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"drover"
	"drover/internal/fault"
)

// Status is how a fleet is. Its JSON form is a contract: fields are only added.
type Status struct {
	Dir string `json:"dir"`
	// Up tells whether the rack runs; Mode and Reason are empty when it does not.
	Up     bool   `json:"up"`
	Mode   Mode   `json:"mode,omitempty"`
	Reason string `json:"reason,omitempty"`
	// RackPID is the rack's process.
	RackPID int `json:"rack_pid,omitempty"`
	// API is the URL of the API; APIAnswers tells whether it does.
	API        string       `json:"api,omitempty"`
	APIAnswers bool         `json:"api_answers"`
	Hosts      []HostStatus `json:"hosts"`
}

// HostStatus is how one host is.
type HostStatus struct {
	ID      drover.HostID `json:"id"`
	Region  drover.Region `json:"region"`
	Roles   []drover.Role `json:"roles"`
	Address string        `json:"address,omitempty"`
	// State is "up" or "off"; Why says how an off host came to be so.
	State string `json:"state"`
	Why   string `json:"why,omitempty"`
	// PID is the host's first process; SIGKILL of it is a power cut.
	PID int `json:"pid,omitempty"`
	// RunDir is where the host's run directory can be looked at from outside.
	RunDir  string `json:"run_dir,omitempty"`
	DataDir string `json:"data_dir"`
	Link    string `json:"link"`
	// Filled is what a ballast takes of the host's disk; ClockOff is by how much the host's clock is wrong.
	Filled drover.Bytes `json:"filled,omitempty"`
	// DiskHangs: nothing that the disk is asked for ends.
	DiskHangs bool            `json:"disk_hangs,omitempty"`
	ClockOff  drover.Duration `json:"clock_off,omitempty"`
	// Rate (bytes per second) and Delay say how slow the link is made.
	Rate  drover.Bytes    `json:"rate,omitempty"`
	Delay drover.Duration `json:"delay,omitempty"`
	// Services have their process numbers as seen from here.
	Services []ServiceStatus `json:"services,omitempty"`
}

// Status asks the rack and each host.
func (f *Fleet) Status(ctx context.Context) (Status, error) {
	s := Status{Dir: f.p.dir()}
	layout, err := loadLayout(f.p)
	if err != nil {
		return s, err
	}
	rack, err := f.rack(ctx)
	if err != nil && !drover.Is(err, drover.Unavailable) {
		return s, err
	}
	if err != nil {
		for _, h := range layout.Hosts {
			s.Hosts = append(s.Hosts, HostStatus{ID: h.ID, Region: h.Region, Roles: h.Roles, State: "off", Why: "the fleet is down",
				DataDir: f.p.data(h.ID), Link: "none"})
		}
		return s, nil
	}
	s.Up, s.Mode, s.Reason = true, rack.Mode, rack.Reason
	if conn, err := dialDir(ctx, f.p.dir(), rackSocketName); err == nil {
		if s.RackPID, err = peerPID(conn); err != nil {
			return s, drover.Errorf(drover.Internal, "cannot tell the rack's process: %w", err)
		}
		conn.Close()
	}
	if info, err := readAPIInfo(f.p); err == nil {
		s.API = info.URL
		_, err := askHosts(ctx, info)
		s.APIAnswers = err == nil
	}
	n := network{mode: rack.Mode, p: f.p}
	views := map[drover.HostID]rackView{}
	for _, v := range rack.Hosts {
		views[v.ID] = v
	}
	for _, h := range layout.Hosts {
		s.Hosts = append(s.Hosts, f.hostStatus(ctx, n, h, views[h.ID]))
	}
	return s, nil
}

func (f *Fleet) hostStatus(ctx context.Context, n network, h HostSpec, v rackView) HostStatus {
	out := HostStatus{ID: h.ID, Region: h.Region, Roles: h.Roles, Address: n.address(h.Number).String(), State: "off", Why: v.Why, PID: v.PID,
		DataDir: f.p.data(h.ID), Link: v.Link.String(), Rate: v.Link.Rate, Delay: drover.Duration(v.Link.Delay),
		Filled: v.Filled, DiskHangs: v.Hangs, ClockOff: drover.Duration(fault.ClockOffset(f.p.faults(h.ID)))}
	if v.PID == 0 {
		return out
	}
	out.State, out.RunDir = "up", f.p.run(h.ID, n.mode)
	if n.mode == ModeNamespaces {
		out.RunDir = fmt.Sprintf("/proc/%d/root%s", v.PID, out.RunDir)
	}
	a, err := f.askHost(ctx, h.ID, 2*time.Second, request{Op: "services"})
	if err != nil {
		out.Why = err.Error()
		return out
	}
	for _, s := range a.Services {
		if s.PID != 0 {
			s.PID = outerPID(v.PID, s.PID)
		}
		out.Services = append(out.Services, s)
	}
	return out
}

// Fault arms a fault: the next time one of the host's processes comes by the point, it is killed (kind "process"), the host's power is
// cut (kind "host"), or it waits there until Release (kind "hold").
func (f *Fleet) Fault(id drover.HostID, point, kind string) error {
	layout, err := loadLayout(f.p)
	if err != nil {
		return err
	}
	if _, err := layout.host(id); err != nil {
		return err
	}
	if point == "" || point != filepath.Base(point) {
		return drover.Errorf(drover.Invalid, "%q is not a fault point such as host.freeze.after", point)
	}
	if err := fault.Arm(f.p.faults(id), point, kind); err != nil {
		return drover.Errorf(drover.Invalid, "cannot arm the fault %q on host %q: %w", point, id, err)
	}
	return nil
}

// LogTail returns the last lines of a host's log: of one of its services, or "host" for that of its first process.
func (f *Fleet) LogTail(id drover.HostID, service string, lines int) (string, error) {
	layout, err := loadLayout(f.p)
	if err != nil {
		return "", err
	}
	h, err := layout.host(id)
	if err != nil {
		return "", err
	}
	if all := append(h.services(), "host"); !slices.Contains(all, service) {
		return "", drover.Errorf(drover.NotFound, "host %q has no log of %q", id, service).WithHint("it has those of %v", all)
	}
	if lines < 1 {
		return "", drover.Errorf(drover.Invalid, "%d lines cannot be shown", lines).WithField("tail")
	}
	text, err := lastLinesOf(f.p.log(id, service), lines)
	if err != nil {
		return "", drover.Errorf(drover.NotFound, "cannot read the log: %w", err)
	}
	return text, nil
}
