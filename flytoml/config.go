package flytoml

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"drover"
	"drover/internal/shellwords"
)

// object is a JSON object.
type object = map[string]any

var restartPolicies = map[string]drover.RestartPolicy{"always": drover.RestartAlways, "never": drover.RestartNo, "no": drover.RestartNo,
	"on-failure": drover.RestartOnFailure}

var sizeName = regexp.MustCompile(`^(shared|performance)-cpu-([0-9]+)x$|^(shared|performance)-([0-9]+)x$`)

// guest is the size of a machine.
func (v VM) guest() (object, error) {
	g := object{}
	if v.Size != "" {
		m := sizeName.FindStringSubmatch(v.Size)
		if m == nil {
			return nil, fmt.Errorf("size is %q; expected one such as shared-cpu-1x or performance-2x", v.Size)
		}
		kind, number := m[1]+m[3], m[2]+m[4]
		cpus, err := strconv.Atoi(number)
		if err != nil || cpus < 1 {
			return nil, fmt.Errorf("size is %q, which has no CPUs", v.Size)
		}
		g["cpu_kind"], g["cpus"], g["memory_mb"] = kind, cpus, 256*cpus
		if kind == "performance" {
			g["memory_mb"] = 2048 * cpus
		}
	}
	if v.CPUKind != "" {
		g["cpu_kind"] = v.CPUKind
	}
	if v.CPUs != 0 {
		g["cpus"] = v.CPUs
	}
	if v.MemoryMB != 0 {
		g["memory_mb"] = v.MemoryMB
	}
	if v.Memory != nil {
		size, err := parseSize(v.Memory, drover.MiB)
		if err != nil {
			return nil, fmt.Errorf("memory is %v; expected a size such as \"512mb\"", v.Memory)
		}
		g["memory_mb"] = int(size / drover.MiB)
	}
	return g, nil
}

// Guest is the size as a machine has it.
func (v VM) Guest() (g drover.Guest, err error) {
	o, err := v.guest()
	if err != nil {
		return g, err
	}
	data, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(data, &g)
	}
	return g, err
}

// Config makes the config of a machine of a process group, without mounts. image counts before the file's own.
func (f File) Config(group, image string) (drover.MachineConfig, error) {
	if image == "" {
		image = f.Build.Image
	}
	if image == "" {
		return drover.MachineConfig{}, drover.Errorf(drover.Invalid, "no image is named: neither by build.image nor by --image").
			WithHint("images are not built here: push one to a registry and name it")
	}
	env := object{"FLY_PROCESS_GROUP": group}
	if f.PrimaryRegion != "" {
		env["PRIMARY_REGION"] = f.PrimaryRegion
	}
	for name, value := range f.Env {
		text, _ := scalar(value) // check has seen that it is one
		env[name] = text
	}
	config := object{"image": image, "env": env, "metadata": object{drover.LabelProcessGroup: group, "fly_platform_version": "v2"}}
	if words, err := shellwords.Split(f.Processes[group]); err != nil {
		return drover.MachineConfig{}, err
	} else if len(words) > 0 {
		config["init"] = object{"cmd": words}
	}
	if f.KillSignal != "" || f.KillTimeout != nil {
		stop := object{}
		if f.KillSignal != "" {
			stop["signal"] = f.KillSignal
		}
		if f.KillTimeout != nil {
			stop["timeout"] = duration(f.KillTimeout)
		}
		config["stop_config"] = stop
	}
	for _, vm := range f.VM {
		if forGroup(vm.Processes, group) {
			guest, err := vm.guest()
			if err != nil {
				return drover.MachineConfig{}, err
			}
			config["guest"] = guest
		}
	}
	for _, r := range f.Restart {
		if forGroup(r.Processes, group) {
			restart := object{"policy": restartPolicies[r.Policy]}
			if r.Retries > 0 {
				restart["max_retries"] = r.Retries
			}
			config["restart"] = restart
		}
	}
	checks := object{}
	for name, c := range f.Checks {
		if forGroup(c.Processes, group) {
			checks[name] = c.form(c.Type)
		}
	}
	if len(checks) > 0 {
		config["checks"] = checks
	}
	if services := f.services(group); len(services) > 0 {
		config["services"] = services
	}
	for _, m := range f.Metrics {
		if forGroup(m.Processes, group) {
			config["metrics"] = object{"port": m.Port, "path": m.Path, "https": m.HTTPS}
		}
	}
	data, err := json.Marshal(config)
	var c drover.MachineConfig
	if err = errors.Join(err, json.Unmarshal(data, &c)); err != nil {
		return c, drover.Errorf(drover.Invalid, "the file makes no config: %w", err)
	}
	return c, nil
}

// ReleaseConfig makes the config of the machine that runs the release command, and how long it may take; nil when the file has none. The machine has the
// environment that all have, and the size of the largest, unless the file says another.
func (f File) ReleaseConfig(image string) (*drover.MachineConfig, drover.Duration, error) {
	words, err := shellwords.Split(f.Deploy.ReleaseCommand)
	if err != nil || len(words) == 0 {
		return nil, 0, err // check has seen that it can be read
	}
	plain := f
	plain.Processes, plain.Services, plain.HTTPService, plain.Checks, plain.Metrics, plain.Restart = nil, nil, nil, nil, nil, nil
	if vm := f.Deploy.ReleaseCommandVM; vm != nil {
		plain.VM = []VM{*vm}
	} else {
		plain.VM = nil
	}
	c, err := plain.Config(drover.ReleaseGroup, image)
	if err != nil {
		return nil, 0, err
	}
	if f.Deploy.ReleaseCommandVM == nil {
		for _, group := range f.Groups() {
			other, err := f.Config(group, image)
			if err != nil {
				return nil, 0, err
			}
			if other.Guest.MemoryMB > c.Guest.MemoryMB || other.Guest.MemoryMB == c.Guest.MemoryMB && other.Guest.CPUs > c.Guest.CPUs {
				c.Guest = other.Guest
			}
		}
	}
	c.Init.Cmd = words
	return &c, duration(f.Deploy.ReleaseCommandTimeout), nil
}

// duration writes a time that check has let pass.
func duration(value any) drover.Duration {
	d, err := parseDuration(value)
	if err != nil {
		return 0
	}
	return d
}

func (c Check) form(kind string) object {
	o := object{"type": kind}
	if c.Port != 0 {
		o["port"] = c.Port
	}
	if c.Path != "" {
		o["path"] = c.Path
	}
	if c.Method != "" {
		o["method"] = c.Method
	}
	for key, value := range map[string]any{"interval": c.Interval, "timeout": c.Timeout, "grace_period": c.GracePeriod} {
		if value != nil {
			o[key] = duration(value)
		}
	}
	return o
}

// services are kept in the config as the Machines API has them.
func (f File) services(group string) []object {
	var all []object
	if s := f.HTTPService; s != nil && forGroup(s.Processes, group) {
		o := service("tcp", s.InternalPort, s.AutoStopMachines, s.AutoStartMachines, s.MinMachinesRunning, s.Concurrency)
		o["ports"] = []object{{"port": 80, "handlers": []string{"http"}, "force_https": s.ForceHTTPS}, {"port": 443, "handlers": []string{"http", "tls"}}}
		var checks []object
		for _, c := range s.Checks {
			checks = append(checks, c.form("http"))
		}
		if checks != nil {
			o["checks"] = checks
		}
		all = append(all, o)
	}
	for _, s := range f.Services {
		if !forGroup(s.Processes, group) {
			continue
		}
		protocol := s.Protocol
		if protocol == "" {
			protocol = "tcp"
		}
		o := service(protocol, s.InternalPort, s.AutoStopMachines, s.AutoStartMachines, s.MinMachinesRunning, s.Concurrency)
		if s.Ports != nil {
			o["ports"] = s.Ports
		}
		var checks []object
		for _, c := range s.TCPChecks {
			checks = append(checks, c.form("tcp"))
		}
		for _, c := range s.HTTPChecks {
			checks = append(checks, c.form("http"))
		}
		if checks != nil {
			o["checks"] = checks
		}
		all = append(all, o)
	}
	return all
}

func service(protocol string, port int, stop any, start *bool, least *int, concurrency map[string]any) object {
	o := object{"protocol": protocol, "internal_port": port}
	if stop != nil {
		o["autostop"] = stop
	}
	if start != nil {
		o["autostart"] = *start
	}
	if least != nil {
		o["min_machines_running"] = *least
	}
	if concurrency != nil {
		o["concurrency"] = concurrency
	}
	return o
}

// Volume is what a mount asks of a volume.
type Volume struct {
	Name, Path string
	// Size is 1 GiB where the file says nothing, SnapshotRetention nil.
	Size              drover.Bytes
	SnapshotRetention *int
}

// Volumes lists the volumes of a machine of a process group.
func (f File) Volumes(group string) []Volume {
	var all []Volume
	for _, m := range f.Mounts {
		if !forGroup(m.Processes, group) {
			continue
		}
		size, err := parseSize(m.InitialSize, drover.GiB)
		if err != nil || size == 0 { // check has seen that it is one
			size = drover.GiB
		}
		all = append(all, Volume{Name: m.Source, Path: m.Destination, Size: size, SnapshotRetention: m.SnapshotRetention})
	}
	return all
}

// Options say how so many machines are to be changed.
func (f File) Options(machines int) drover.DeployOptions {
	most, err := f.Deploy.unavailable(machines)
	if err != nil {
		most = 0 // check has seen that it is none
	}
	return drover.DeployOptions{Strategy: drover.DeployStrategy(f.Deploy.Strategy), MaxUnavailable: most, WaitTimeout: duration(f.Deploy.WaitTimeout)}
}
