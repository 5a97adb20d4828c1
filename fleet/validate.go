package fleet

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"drover"
)

// Limits of a machine's config.
const (
	maxMemoryMB = 1 << 20
	maxCPUs     = 64
	maxMounts   = 8
	maxConfig   = 512 << 10
	minStop     = time.Millisecond
	maxStop     = 10 * time.Minute
	maxRetries  = 1000
)

// signals are those that a main process can be sent: what the Machines API lists, and what programs beside it are stopped, paused and told by.
func signals() []string {
	return []string{"SIGABRT", "SIGALRM", "SIGCONT", "SIGFPE", "SIGHUP", "SIGILL", "SIGINT", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSEGV", "SIGSTOP", "SIGTERM", "SIGTRAP",
		"SIGTSTP", "SIGUSR1", "SIGUSR2", "SIGWINCH"}
}

func knownSignal(s string) bool { return slices.Contains(signals(), s) }

func badSignal(field, s string) *drover.Error {
	return drover.Errorf(drover.Invalid, "%s: %q is not a signal that can be sent: use one of %s", field, s, strings.Join(signals(), ", ")).WithField(field)
}

// problems collects everything that is wrong with a request.
type problems []*drover.Error

func (p *problems) add(field, format string, args ...any) {
	*p = append(*p, drover.Errorf(drover.Invalid, "%s: %s", field, fmt.Sprintf(format, args...)).WithField(field))
}

// err returns all problems as one error, which carries the first one's field; nil if there are none.
func (p problems) err() error {
	switch len(p) {
	case 0:
		return nil
	case 1:
		return p[0]
	}
	texts := make([]string, 0, len(p))
	for _, e := range p {
		texts = append(texts, e.Text)
	}
	return drover.Errorf(drover.Invalid, "%d things are wrong: %s", len(p), strings.Join(texts, "; ")).WithField(p[0].Field)
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// checkConfig checks all of a config that can be checked without looking anything up. Defaults are filled in already.
func checkConfig(c drover.MachineConfig, size int) error {
	var p problems
	if size > maxConfig {
		p.add("config", "%d bytes are too many: at most %d", size, maxConfig)
	}
	if strings.TrimSpace(c.Image) == "" {
		p.add("config.image", "is empty: name an image such as docker.io/library/busybox:1.36")
	}
	checkGuest(&p, c.Guest)
	checkEnv(&p, "config.env", c.Env)
	checkInit(&p, c.Init)
	checkMounts(&p, c.Mounts)
	switch c.Restart.Policy {
	case drover.RestartNo, drover.RestartOnFailure, drover.RestartAlways:
	case "spot-price":
		p.add("config.restart.policy", "nothing is bid for here, so there are no spot prices: use no, on-failure or always")
	default:
		p.add("config.restart.policy", "%q is unknown: use no, on-failure or always", c.Restart.Policy)
	}
	if c.Restart.MaxRetries < 0 || c.Restart.MaxRetries > maxRetries {
		p.add("config.restart.max_retries", "%d is out of range: 0 to %d", c.Restart.MaxRetries, maxRetries)
	}
	checkStop(&p, "config.stop_config", c.StopConfig)
	for _, key := range slices.Sorted(maps.Keys(c.Metadata)) {
		if e := drover.CheckLabel(key, c.Metadata[key]); e != nil {
			p.add("config.metadata", "%s", e.Text)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Checks)) {
		checkCheck(&p, "config.checks."+name, c.Checks[name])
	}
	checkServices(&p, c)
	checkRun(&p, c)
	return p.err()
}

func checkGuest(p *problems, g drover.Guest) {
	switch {
	case g.CPUs < 1:
		p.add("config.guest.cpus", "%d is too few: at least 1", g.CPUs)
	case g.CPUs > maxCPUs:
		p.add("config.guest.cpus", "%d is too many: at most %d", g.CPUs, maxCPUs)
	}
	switch {
	case g.MemoryMB < drover.MinMemoryMB:
		p.add("config.guest.memory_mb", "%d is too small: at least %d", g.MemoryMB, drover.MinMemoryMB)
	case g.MemoryMB > maxMemoryMB:
		p.add("config.guest.memory_mb", "%d is too large: at most %d", g.MemoryMB, maxMemoryMB)
	}
	if g.CPUKind != "shared" && g.CPUKind != "performance" {
		p.add("config.guest.cpu_kind", "%q is unknown: use shared or performance", g.CPUKind)
	}
	if g.GPUs != 0 {
		p.add("config.guest.gpus", "%d: the hosts give no GPUs to machines: leave it out", g.GPUs)
	}
	checkKernelArgs(p, "config.guest.kernel_args", g.KernelArgs)
	if !drover.ValidTransport(g.DiskTransport) {
		p.add("config.guest.disk_transport", "%q is unknown: use auto, nbd or vhost-user-blk", g.DiskTransport)
	}
}

func checkInit(p *problems, i drover.Init) {
	checkWords(p, "config.init", i.Exec, i.Entrypoint, i.Cmd)
	if i.SwapSizeMB < 0 || i.SwapSizeMB > maxSwapMB {
		p.add("config.init.swap_size_mb", "%d is out of range: 0 to %d", i.SwapSizeMB, maxSwapMB)
	}
	checkKernelArgs(p, "config.init.kernel_args", i.KernelArgs)
}

func checkMounts(p *problems, mounts []drover.Mount) {
	if len(mounts) > maxMounts {
		p.add("config.mounts", "%d are too many: at most %d", len(mounts), maxMounts)
	}
	paths, volumes := map[string]int{}, map[drover.VolumeID]int{}
	for i, m := range mounts {
		at := fmt.Sprintf("config.mounts[%d]", i)
		if m.Volume == "" {
			p.add(at+".volume", "is empty: name a volume such as vol_0123456789abcdef")
		} else if first, twice := volumes[m.Volume]; twice {
			p.add(at+".volume", "%q is mounted by mounts[%d] already", m.Volume, first)
		} else {
			volumes[m.Volume] = i
		}
		clean := path.Clean(m.Path)
		first, twice := paths[clean]
		switch {
		case m.Path == "":
			p.add(at+".path", "is empty: use an absolute path such as /data")
		case !path.IsAbs(m.Path):
			p.add(at+".path", "%q is not absolute: it begins with /", m.Path)
		case clean == "/" || slices.Contains([]string{"/proc", "/sys", "/dev"}, clean):
			p.add(at+".path", "%q cannot be mounted over: use a path such as /data", m.Path)
		case twice:
			p.add(at+".path", "%q is the path of mounts[%d] already", m.Path, first)
		default:
			paths[clean] = i
		}
	}
}

func checkStop(p *problems, field string, s drover.StopConfig) {
	if s.Signal != "" && !knownSignal(s.Signal) {
		*p = append(*p, badSignal(field+".signal", s.Signal))
	}
	if d := time.Duration(s.Timeout); d != 0 && (d < minStop || d > maxStop) {
		p.add(field+".timeout", "%v is out of range: %v to %v", d, minStop, maxStop)
	}
}

func checkCheck(p *problems, at string, c drover.Check) {
	if c.Type != drover.CheckTCP && c.Type != drover.CheckHTTP {
		p.add(at+".type", "%q is unknown: use tcp or http", c.Type)
	}
	if c.Port < 1 || c.Port > 65535 {
		p.add(at+".port", "%d is not a port: 1 to 65535", c.Port)
	}
	if c.Path != "" && !strings.HasPrefix(c.Path, "/") {
		p.add(at+".path", "%q does not begin with /", c.Path)
	}
	checkHTTP(p, at, c)
	if c.Interval < 0 || c.Timeout < 0 || c.GracePeriod < 0 {
		p.add(at, "its times cannot be negative")
	}
}
