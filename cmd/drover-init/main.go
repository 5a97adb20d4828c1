package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/guest"
)

// defaultDeadline bounds the boot while the config is not read, and when it does not say.
const defaultDeadline = time.Minute

// traceVariable makes the boot say on the console when it does what. A word of the kernel's command line that the kernel does not
// know, such as drover_trace=1, becomes a variable of PID 1.
const traceVariable = "drover_trace"

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "drover-init is PID 1 of a Drover guest; it does nothing on any other system")
		os.Exit(1)
	}
	b := &boot{report: &reporter{}, procs: newProcesses()}
	b.stage.Store("start")
	watchdog := time.AfterFunc(defaultDeadline, b.tooLate)
	err := b.run(watchdog)
	if err != nil {
		b.report.emit(guest.StatusEvent{Event: guest.EventFailed, Stage: b.stage.Load().(string), Error: err.Error()})
	}
	watchdog.Stop()
	powerOff(b, err)
}

// boot gets from nothing to the main process.
type boot struct {
	report *reporter
	procs  *processes
	// stage is what is being done, a string, for the report of a boot that hangs.
	stage atomic.Value

	cfg                guest.Config
	logPort, agentPort *port
	root               string
	volumes            []volume
	mender             *mender
	// mounted are the volumes' paths, in the order in which they were mounted.
	mounted  []string
	switched bool
	user     identity
	// programs are what is to be run: one, or the processes of the config.
	programs []program
}

// run boots, and returns when the main process has ended, or with what went wrong.
func (b *boot) run(watchdog *time.Timer) error {
	trace := os.Getenv(traceVariable) != ""
	b.mender = newMender(b, watchdog)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"mount /proc, /sys and /dev", mountKernel},
		{"load kernel modules", loadModules},
		{"open the ports to the host", b.openPorts},
		{"read the config", func() error { return b.readConfig(watchdog) }},
		{"mount the root disk", b.mountRoot},
		{"prepare the volumes", b.prepareVolumes},
		{"switch to the root disk", b.switchRoot},
		{"mount /dev/pts and /dev/shm", mountExtras},
		{"set limits", setLimits},
		{"find the machine's user", b.findUser},
		{"set up swap", func() error { return setUpSwap(b.cfg.Swap) }},
		{"mount the volumes", b.mountVolumes},
		{"write the machine's files", func() error { return writeUserFiles(b.cfg.Files, b.user) }},
		{"set up the network", func() error { return setUpNetwork(b.cfg.Network) }},
		{"write /etc/hosts and /etc/resolv.conf", func() error { return writeNames(b.cfg) }},
	} {
		b.stage.Store(step.name)
		if trace {
			console("%.3f %s", uptime(), step.name)
		}
		if err := step.do(); err != nil {
			return err
		}
	}
	b.report.emit(guest.StatusEvent{Event: guest.EventBooted, Formatted: b.formatted()})
	b.stage.Store("run the main process")
	m := &machine{cfg: b.cfg, report: b.report, procs: b.procs, filesystems: newFilesystems(b.volumes), logs: &logWriter{port: b.logPort},
		checks: newChecker(b.cfg, b.report), env: environment(b.cfg.Env, b.cfg.Hostname, b.user), programs: b.programs, dir: path.Clean("/" + b.cfg.WorkDir)}
	watchdog.Stop()
	for _, text := range b.mender.mended {
		m.logs.say("%s", text)
	}
	if err := m.run(b.agentPort); err != nil {
		console("%v", err)
	}
	return nil
}

func (b *boot) openPorts() error {
	status, err := openPort(guest.StatusPort)
	if err != nil {
		return err
	}
	b.report.attach(status)
	if b.logPort, err = openPort(guest.LogPort); err != nil {
		return err
	}
	b.agentPort, err = openPort(guest.AgentPort)
	return err
}

func (b *boot) readConfig(watchdog *time.Timer) error {
	device, err := findDisk(guest.ConfigSerial, "", 1)
	if err != nil {
		return err
	}
	if b.cfg, err = guest.ReadConfig(device); err != nil {
		return err
	}
	b.report.setRun(b.cfg.Run)
	if d := time.Duration(b.cfg.BootDeadline); d > 0 {
		watchdog.Reset(d)
	}
	return nil
}

func (b *boot) mountRoot() (err error) {
	if b.root, err = findDisk(guest.RootSerial, string(drover.RootDisk(drover.MachineID(b.cfg.Hostname))), 0); err != nil {
		return err
	}
	if err := b.mender.mend("the root disk", b.root); err != nil {
		return err
	}
	return mountRoot(b.root)
}

func (b *boot) prepareVolumes() (err error) {
	b.volumes, err = prepareVolumes(b.cfg.Volumes, b.mender)
	return err
}

func (b *boot) switchRoot() error {
	if err := switchRoot(); err != nil {
		return err
	}
	b.switched = true
	return nil
}

func (b *boot) findUser() (err error) {
	if b.user, err = findIdentity(b.cfg.User); err != nil {
		return err
	}
	if len(b.cfg.Processes) == 0 {
		b.programs = []program{{argv: b.cfg.Argv, env: environment(b.cfg.Env, b.cfg.Hostname, b.user), user: b.user, tty: b.cfg.TTY}}
	}
	for _, p := range b.cfg.Processes {
		user, err := findIdentity(p.User)
		if err != nil {
			return fmt.Errorf("process %s: %w", p.Name, err)
		}
		b.programs = append(b.programs, program{name: p.Name, argv: p.Argv, env: environment(p.Env, b.cfg.Hostname, user), user: user})
	}
	return nil
}

func (b *boot) mountVolumes() error {
	for _, v := range b.volumes {
		b.stage.Store("mount " + v.Path)
		if err := mountVolume(v.Volume, v.device, v.fresh, b.user); err != nil {
			return err
		}
		b.mounted = append(b.mounted, path.Clean("/"+v.Path))
	}
	return nil
}

func (b *boot) formatted() []string {
	var names []string
	for _, v := range b.volumes {
		if v.fresh {
			names = append(names, v.Name)
		}
	}
	return names
}

// tooLate ends a boot that hangs, without touching the disks: they may be what it hangs on.
func (b *boot) tooLate() {
	stage, _ := b.stage.Load().(string)
	b.report.emit(guest.StatusEvent{Event: guest.EventFailed, Stage: stage, Error: "the boot did not end within its deadline"})
	off()
}

// powerOff takes the disks down and ends the VM. It does not return.
func powerOff(b *boot, failed error) {
	var err error
	switch {
	case b.switched:
		err = errors.Join(endSwap(), unmountAll(b.mounted))
	case failed == nil || b.root != "":
		unix.Sync()
		err = ignoreNotMounted(unix.Unmount(newRoot, 0))
	}
	ev := guest.StatusEvent{Event: guest.EventPowerOff}
	if err != nil {
		ev.Error = err.Error()
	}
	b.report.emit(ev)
	off()
}

// ignoreNotMounted: what is not mounted needs no unmounting.
func ignoreNotMounted(err error) error {
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// off ends the VM: by ACPI, or by a reset, which ends it as well (the VMM runs with -no-reboot).
func off() {
	for _, how := range []int{unix.LINUX_REBOOT_CMD_POWER_OFF, unix.LINUX_REBOOT_CMD_RESTART} {
		if err := unix.Reboot(how); err != nil {
			console("cannot switch off: %v", err)
		}
	}
	os.Exit(1) // PID 1 ends: the kernel panics, which ends the VM too
}
