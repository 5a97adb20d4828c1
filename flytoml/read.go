package flytoml

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"drover"
)

// File is what a fly.toml says.
type File struct {
	App           string            `toml:"app"`
	PrimaryRegion string            `toml:"primary_region"`
	KillSignal    string            `toml:"kill_signal"`
	KillTimeout   any               `toml:"kill_timeout"`
	Build         Build             `toml:"build"`
	Env           map[string]any    `toml:"env"`
	Deploy        Deploy            `toml:"deploy"`
	Mounts        []Mount           `toml:"mounts"`
	HTTPService   *HTTPService      `toml:"http_service"`
	Services      []Service         `toml:"services"`
	Checks        map[string]*Check `toml:"checks"`
	VM            []VM              `toml:"vm"`
	Processes     map[string]string `toml:"processes"`
	Restart       []Restart         `toml:"restart"`
	Metrics       []Metrics         `toml:"metrics"`
}

// Build says which image; it is not built here.
type Build struct {
	Image string `toml:"image"`
}

// Deploy says how machines are changed.
type Deploy struct {
	Strategy       string `toml:"strategy"`
	MaxUnavailable any    `toml:"max_unavailable"`
	WaitTimeout    any    `toml:"wait_timeout"`
	// ReleaseCommand runs to its end before machines are changed, in a machine of its own.
	ReleaseCommand        string `toml:"release_command"`
	ReleaseCommandTimeout any    `toml:"release_command_timeout"`
	ReleaseCommandVM      *VM    `toml:"release_command_vm"`
}

// Mount is a volume for each machine of its groups.
type Mount struct {
	Source            string   `toml:"source"`
	Destination       string   `toml:"destination"`
	InitialSize       any      `toml:"initial_size"`
	SnapshotRetention *int     `toml:"snapshot_retention"`
	Processes         []string `toml:"processes"`
}

// HTTPService is a service on ports 80 and 443.
type HTTPService struct {
	InternalPort       int            `toml:"internal_port"`
	ForceHTTPS         bool           `toml:"force_https"`
	AutoStopMachines   any            `toml:"auto_stop_machines"`
	AutoStartMachines  *bool          `toml:"auto_start_machines"`
	MinMachinesRunning *int           `toml:"min_machines_running"`
	Concurrency        map[string]any `toml:"concurrency"`
	Checks             []Check        `toml:"checks"`
	Processes          []string       `toml:"processes"`
}

// Service is what a machine offers on an internal port.
type Service struct {
	Protocol           string           `toml:"protocol"`
	InternalPort       int              `toml:"internal_port"`
	AutoStopMachines   any              `toml:"auto_stop_machines"`
	AutoStartMachines  *bool            `toml:"auto_start_machines"`
	MinMachinesRunning *int             `toml:"min_machines_running"`
	Ports              []map[string]any `toml:"ports"`
	Concurrency        map[string]any   `toml:"concurrency"`
	TCPChecks          []Check          `toml:"tcp_checks"`
	HTTPChecks         []Check          `toml:"http_checks"`
	Processes          []string         `toml:"processes"`
}

// Check is a health check.
type Check struct {
	Type        string   `toml:"type"`
	Port        int      `toml:"port"`
	Path        string   `toml:"path"`
	Method      string   `toml:"method"`
	Interval    any      `toml:"interval"`
	Timeout     any      `toml:"timeout"`
	GracePeriod any      `toml:"grace_period"`
	Processes   []string `toml:"processes"`
}

// VM is the size of the machines of its groups.
type VM struct {
	Size      string   `toml:"size"`
	CPUKind   string   `toml:"cpu_kind"`
	CPUs      int      `toml:"cpus"`
	Memory    any      `toml:"memory"`
	MemoryMB  int      `toml:"memory_mb"`
	Processes []string `toml:"processes"`
}

// Restart is the restart policy of the machines of its groups.
type Restart struct {
	Policy    string   `toml:"policy"`
	Retries   int      `toml:"retries"`
	Processes []string `toml:"processes"`
}

// Metrics is where a machine offers metrics. It is kept in its config.
type Metrics struct {
	Port      int      `toml:"port"`
	Path      string   `toml:"path"`
	HTTPS     bool     `toml:"https"`
	Processes []string `toml:"processes"`
}

// reasons says why what Drover does not have is not there, by the first parts of the key.
var reasons = []struct{ key, why string }{
	{"build", "images are not built here: push one to a registry and name it by build.image or --image"},
	{"deploy.release_command_vm", "machines have a size, cpus, cpu_kind and memory"},
	{"deploy.strategy", "the strategies are rolling and immediate"},
	{"deploy", "it is none of strategy, max_unavailable, wait_timeout, release_command, release_command_timeout and release_command_vm"},
	{"statics", "files are served by the app itself"},
	{"files", "put them into the image"},
	{"console_command", "'drover ssh' opens a shell"},
	{"experimental", "nothing of it is known"},
	{"swap_size_mb", "machines have no swap: give them memory by vm.memory"},
	{"mounts", "volumes have source, destination, initial_size, snapshot_retention and processes; 'drover volume extend' makes one larger"},
	{"vm", "machines have a size, cpus, cpu_kind and memory"},
	{"checks", "checks have type, port, path, method, interval, timeout, grace_period and processes"},
	{"services", "nothing here serves it"},
	{"http_service", "nothing here serves it"},
}

func reasonOf(key string) string {
	for _, r := range reasons {
		if key == r.key || strings.HasPrefix(key, r.key+".") {
			return r.why
		}
	}
	return "it is not known"
}

// Problem is something in a file that is wrong, or not supported. Line is 0 when it is nowhere in particular.
type Problem struct {
	Line int
	Key  string
	Text string
}

// Describe writes problems one to a line, each with the file's name and its line.
func Describe(name string, problems []Problem) string {
	var lines []string
	for _, p := range problems {
		place := name
		if p.Line > 0 {
			place = fmt.Sprintf("%s:%d", name, p.Line)
		}
		lines = append(lines, fmt.Sprintf("%s: %s", place, p.Text))
	}
	return strings.Join(lines, "\n")
}

// single are sections that may be written as one table or as many.
var single = regexp.MustCompile(`(?m)^([ \t]*)\[[ \t]*(mounts|vm|restart|metrics|services)[ \t]*\]`)

// Read reads a file. What Drover does not have is returned as unsupported; Invalid when the file itself is wrong, with its line.
func Read(name string, data []byte) (f File, unsupported []Problem, err error) {
	text := single.ReplaceAllString(string(data), "$1[[$2]]")
	decoder := toml.NewDecoder(strings.NewReader(text)).DisallowUnknownFields()
	err = decoder.Decode(&f)
	var missing *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &missing):
		for _, e := range missing.Errors {
			line, _ := e.Position()
			unsupported = append(unsupported, unsupportedKey(text, line, strings.Join(e.Key(), ".")))
		}
	case errors.As(err, &wrong):
		line, column := wrong.Position()
		if says := wrongKind(text, wrong); says != "" {
			return f, nil, drover.Errorf(drover.Invalid, "%s:%d:%d: %s", name, line, column, says)
		}
		where := ""
		if key := strings.Join(wrong.Key(), "."); key != "" {
			where = key + ": "
		}
		return f, nil, drover.Errorf(drover.Invalid, "%s:%d:%d: %s%s", name, line, column, where, strings.TrimPrefix(wrong.Error(), "toml: "))
	case err != nil:
		return f, nil, drover.Errorf(drover.Invalid, "%s: %s", name, strings.TrimPrefix(err.Error(), "toml: "))
	}
	// Every key of a section that is not there at all is a problem of its own to the decoder; one line says it better.
	unsupported = slices.CompactFunc(unsupported, func(a, b Problem) bool { return a.Key == b.Key })
	if problems := f.check(text); len(problems) > 0 {
		return f, unsupported, drover.Errorf(drover.Invalid, "%s", Describe(name, problems))
	}
	return f, unsupported, nil
}

// unsupportedKey names a key that is not known, or its whole section if that is not.
func unsupportedKey(text string, line int, key string) Problem {
	first, _, _ := strings.Cut(key, ".")
	shown := key
	known := []string{"build", "deploy", "mounts", "http_service", "services", "checks", "vm", "restart", "metrics"}
	if section, at := sectionBefore(text, line); !slices.Contains(known, first) && (section == first || strings.HasPrefix(section, first+".")) {
		line, shown, key = at, "["+first+"]", first
	}
	return Problem{Line: line, Key: key, Text: fmt.Sprintf("%s is not supported: %s", shown, reasonOf(key))}
}

var header = regexp.MustCompile(`^\s*\[+\s*([^\]]+?)\s*\]+`)

// sectionBefore finds the header of the section that a line is in.
func sectionBefore(text string, line int) (name string, at int) {
	lines := strings.Split(text, "\n")
	for n := min(line, len(lines)); n > 0; n-- {
		if m := header.FindStringSubmatch(lines[n-1]); m != nil {
			return m[1], n
		}
	}
	return "", 0
}

// lineOf finds the line of a key of the n-th table (from 0) of a section, for what is wrong by its meaning; without a key that of the table itself. 0
// when it is written in some other way.
func lineOf(text, section string, n int, key string) int {
	in := section == ""
	for k, line := range strings.Split(text, "\n") {
		if m := header.FindStringSubmatch(line); m != nil {
			in = m[1] == section && n == 0
			if m[1] == section {
				n--
			}
			if in && key == "" {
				return k + 1
			}
			continue
		}
		name, _, ok := strings.Cut(line, "=")
		if in && ok && strings.Trim(strings.TrimSpace(name), `"'`) == key {
			return k + 1
		}
	}
	return 0
}
