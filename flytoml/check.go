package flytoml

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover"
	"drover/internal/shellwords"
)

// DefaultGroup is the process group of files that name none.
const DefaultGroup = "app"

// Groups lists the process groups, by name.
func (f File) Groups() []string {
	if len(f.Processes) == 0 {
		return []string{DefaultGroup}
	}
	return slices.Sorted(maps.Keys(f.Processes))
}

// forGroup tells whether something that names groups is for the group; naming none is for all.
func forGroup(processes []string, group string) bool {
	return len(processes) == 0 || slices.Contains(processes, group)
}

// checker gathers what is wrong with a file.
type checker struct {
	text     string
	groups   []string
	problems []Problem
}

func (c *checker) add(section string, n int, key, format string, args ...any) {
	line := lineOf(c.text, section, n, key)
	if line == 0 && key != "" {
		line = lineOf(c.text, section, n, "")
	}
	c.problems = append(c.problems, Problem{Line: line, Key: section + "." + key, Text: fmt.Sprintf(format, args...)})
}

// duration checks a time that may be text such as "10s", or a number of seconds where the file's format has it so.
func (c *checker) duration(section string, n int, key string, value any) {
	if _, err := parseDuration(value); err != nil {
		c.add(section, n, key, "%s is %v; expected a time such as \"30s\"", key, value)
	}
}

func (c *checker) processes(section string, n int, names []string) {
	for _, name := range names {
		if !slices.Contains(c.groups, name) {
			c.add(section, n, "processes", "processes names %q; the groups are %s", name, strings.Join(c.groups, ", "))
		}
	}
}

// fits checks what is passed on to the machine's config as it is written: whether the member of a service that it becomes can be that.
func (c *checker) fits(section string, n int, key, member string, value any) {
	data, err := json.Marshal(object{member: value})
	if err == nil {
		err = json.Unmarshal(data, &drover.Service{})
	}
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
	case errors.As(err, &wrong) && kindWords(wrong.Type) != "":
		c.add(section, n, key, "%s is a %s; expected %s", wrong.Field, wrong.Value, kindWords(wrong.Type))
	case key == "auto_stop_machines":
		shown, _ := json.Marshal(value) // it was marshalled before
		c.add(section, n, key, "%s is %s; expected \"off\", \"stop\" or \"suspend\", or true or false", key, shown)
	default:
		c.add(section, n, key, "%s: %v", key, err)
	}
}

// check finds what the decoder cannot: values that mean nothing.
func (f File) check(text string) []Problem {
	c := &checker{text: text, groups: f.Groups()}
	if f.App != "" && !drover.ValidName(f.App) {
		c.add("", 0, "app", "app is %q; expected lower-case letters, digits and dashes", f.App)
	}
	for name := range f.Processes {
		if !drover.ValidName(name) {
			c.add("processes", 0, name, "%q cannot be the name of a process group; expected lower-case letters, digits and dashes", name)
		}
		if words, err := shellwords.Split(f.Processes[name]); err != nil {
			c.add("processes", 0, name, "%s: %v", name, err)
		} else if len(words) == 0 && len(f.Processes) > 1 {
			c.add("processes", 0, name, "%s has no command", name)
		}
	}
	for name, value := range f.Env {
		if _, ok := scalar(value); !ok {
			c.add("env", 0, name, "%s is not a text, a number or a truth value", name)
		}
	}
	c.duration("", 0, "kill_timeout", f.KillTimeout)
	c.duration("deploy", 0, "wait_timeout", f.Deploy.WaitTimeout)
	c.duration("deploy", 0, "release_command_timeout", f.Deploy.ReleaseCommandTimeout)
	if _, err := shellwords.Split(f.Deploy.ReleaseCommand); err != nil {
		c.add("deploy", 0, "release_command", "release_command: %v", err)
	}
	if vm := f.Deploy.ReleaseCommandVM; vm != nil {
		if _, err := vm.guest(); err != nil {
			c.add("deploy.release_command_vm", 0, "", "%v", err)
		}
	}
	if _, err := f.Deploy.unavailable(10); err != nil {
		c.add("deploy", 0, "max_unavailable", "max_unavailable is %v; expected a number of machines, or a share such as 0.33 or \"33%%\"", f.Deploy.MaxUnavailable)
	}
	switch f.Deploy.Strategy {
	case "", string(drover.StrategyRolling), string(drover.StrategyImmediate):
	default:
		c.add("deploy", 0, "strategy", "strategy %q is not supported: the strategies are %s and %s", f.Deploy.Strategy, drover.StrategyRolling, drover.StrategyImmediate)
	}
	f.checkMounts(c)
	f.checkServices(c)
	for n, vm := range f.VM {
		c.processes("vm", n, vm.Processes)
		if _, err := vm.guest(); err != nil {
			c.add("vm", n, "", "%v", err)
		}
	}
	for n, r := range f.Restart {
		c.processes("restart", n, r.Processes)
		if _, ok := restartPolicies[r.Policy]; !ok {
			c.add("restart", n, "policy", "policy is %q; expected always, never or on-failure", r.Policy)
		}
	}
	for n, m := range f.Metrics {
		c.processes("metrics", n, m.Processes)
	}
	slices.SortFunc(c.problems, func(a, b Problem) int { return a.Line - b.Line })
	return c.problems
}

func (f File) checkMounts(c *checker) {
	of := map[string]int{}
	for n, m := range f.Mounts {
		c.processes("mounts", n, m.Processes)
		if m.Source == "" || !volumeName.MatchString(m.Source) {
			c.add("mounts", n, "source", "source is %q; expected the name of a volume: lower-case letters, digits and underscores", m.Source)
		}
		if !strings.HasPrefix(m.Destination, "/") {
			c.add("mounts", n, "destination", "destination is %q; expected an absolute path", m.Destination)
		}
		if size, err := parseSize(m.InitialSize, drover.GiB); err != nil || size != 0 && size < drover.GiB {
			c.add("mounts", n, "initial_size", "initial_size is %v; expected a size such as \"10gb\", 1gb at least", m.InitialSize)
		}
		for _, group := range c.groups {
			key := group + " " + m.Source
			if _, twice := of[key]; twice && forGroup(m.Processes, group) {
				c.add("mounts", n, "source", "source %q is mounted twice by the process group %s", m.Source, group)
			}
			if forGroup(m.Processes, group) {
				of[key] = n
			}
		}
	}
}

var volumeName = regexp.MustCompile(`^[a-z0-9_]{1,30}$`)

func (f File) checkServices(c *checker) {
	port := func(section string, n int, key string, port int) {
		if port < 1 || port > 65535 {
			c.add(section, n, key, "%s is %d; expected 1 to 65535", key, port)
		}
	}
	checks := func(section string, of []Check) {
		for n, check := range of {
			for key, value := range map[string]any{"interval": check.Interval, "timeout": check.Timeout, "grace_period": check.GracePeriod} {
				c.duration(section, n, key, value)
			}
		}
	}
	if f.HTTPService != nil {
		port("http_service", 0, "internal_port", f.HTTPService.InternalPort)
		c.fits("http_service", 0, "auto_stop_machines", "autostop", f.HTTPService.AutoStopMachines)
		c.fits("http_service", 0, "concurrency", "concurrency", f.HTTPService.Concurrency)
		c.processes("http_service", 0, f.HTTPService.Processes)
		checks("http_service.checks", f.HTTPService.Checks)
	}
	for n, s := range f.Services {
		port("services", n, "internal_port", s.InternalPort)
		c.fits("services", n, "auto_stop_machines", "autostop", s.AutoStopMachines)
		c.fits("services", n, "concurrency", "concurrency", s.Concurrency)
		c.fits("services", n, "ports", "ports", s.Ports)
		c.processes("services", n, s.Processes)
		if s.Protocol != "" && s.Protocol != "tcp" && s.Protocol != "udp" {
			c.add("services", n, "protocol", "protocol is %q; expected tcp or udp", s.Protocol)
		}
		checks("services.tcp_checks", s.TCPChecks)
		checks("services.http_checks", s.HTTPChecks)
	}
	for name, check := range f.Checks {
		section := "checks." + name
		port(section, 0, "port", check.Port)
		c.processes(section, 0, check.Processes)
		if check.Type != "tcp" && check.Type != "http" {
			c.add(section, 0, "type", "type is %q; expected tcp or http", check.Type)
		}
		checks(section, []Check{*check})
	}
}

// parseDuration reads a time: a text such as "10s", or a whole number of seconds.
func parseDuration(value any) (drover.Duration, error) {
	switch v := value.(type) {
	case nil:
		return 0, nil
	case int64:
		if v >= 0 && v < 1<<31 {
			return drover.Duration(time.Duration(v) * time.Second), nil
		}
	case string:
		if d, err := time.ParseDuration(v); err == nil && d >= 0 {
			return drover.Duration(d), nil
		}
	}
	return 0, fmt.Errorf("%v is not a time", value)
}

var sizeText = regexp.MustCompile(`^(?i)\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?\s*$`)

// parseSize reads an amount such as "512mb" or "1gb"; a bare number is in the unit. 0 for none.
func parseSize(value any, unit drover.Bytes) (drover.Bytes, error) {
	var text string
	switch v := value.(type) {
	case nil:
		return 0, nil
	case int64:
		text = strconv.FormatInt(v, 10)
	case string:
		text = v
	}
	m := sizeText.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%v is not a size", value)
	}
	number, err := strconv.ParseFloat(m[1], 64)
	scale, ok := map[string]drover.Bytes{"k": drover.KiB, "m": drover.MiB, "g": drover.GiB, "t": 1024 * drover.GiB}[strings.ToLower(m[2])]
	if !ok {
		scale = unit
	}
	if err != nil || number <= 0 || number*float64(scale) > 1<<60 {
		return 0, fmt.Errorf("%v is not a size", value)
	}
	return drover.Bytes(number * float64(scale)), nil
}

// scalar writes a value of the environment as text.
func scalar(value any) (string, bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case int64, bool:
		return fmt.Sprint(v), true
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), true
	}
	return "", false
}

// unavailable is how many of so many machines may be changed at once.
func (d Deploy) unavailable(machines int) (int, error) {
	share := 0.0
	switch v := d.MaxUnavailable.(type) {
	case nil:
		return 0, nil
	case int64:
		if v >= 1 && v <= drover.MaxDeployItems {
			return int(v), nil
		}
	case float64:
		share = v
	case string:
		percent, err := strconv.ParseFloat(strings.TrimSuffix(v, "%"), 64)
		if err == nil && strings.HasSuffix(v, "%") {
			share = percent / 100
		}
	}
	if !(share > 0 && share <= 1) {
		return 0, fmt.Errorf("%v is neither a number nor a share", d.MaxUnavailable)
	}
	return max(1, int(share*float64(machines))), nil
}
