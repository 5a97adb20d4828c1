package qemu

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"drover"
)

// machineAlias is the machine type as such; QEMU makes it the newest version that it knows.
const machineAlias = "pc"

var machineRE = regexp.MustCompile(`(?m)^pc\s.*\(alias of (pc-[a-z0-9.-]+)\)`)

// findMachine asks QEMU which version of the machine type it means.
func (d *Driver) findMachine(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, d.binary, "-machine", "help").Output()
	if err != nil {
		return drover.Errorf(drover.Internal, "qemu: %s -machine help: %w", d.binary, err)
	}
	if m := machineRE.FindSubmatch(out); m != nil {
		d.machine = string(m[1])
	}
	return nil
}

// machineType is what VMs are started as.
func (d *Driver) machineType() string {
	if d.machine == "" {
		return machineAlias
	}
	return d.machine
}

// Platform names what a guest's devices look like: memory goes between equal ones only.
func (d *Driver) Platform() string { return d.Version() + " " + d.machineType() }

// CPU names the processor that guests see: memory goes between equal ones only. With KVM it is the host's own.
func (d *Driver) CPU() (string, error) {
	if d.accel != drover.AccelKVM {
		return "tcg-max", nil
	}
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", drover.Errorf(drover.Internal, "qemu: cannot tell the host's processor: %w", err)
	}
	return hostCPU(string(text)), nil
}

// hostCPU makes a name of what the kernel tells of the first processor: its model in words, and a digest of everything that a guest could
// come to rely on.
func hostCPU(cpuinfo string) string {
	first, _, _ := strings.Cut(cpuinfo, "\n\n")
	fields := map[string]string{}
	for line := range strings.Lines(first) {
		name, value, _ := strings.Cut(line, ":")
		fields[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	flags := strings.Fields(fields["flags"])
	slices.Sort(flags)
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %s %q", fields["vendor_id"], fields["cpu family"], fields["model"], flags))
	return fmt.Sprintf("%s (%x)", strings.Join(strings.Fields(fields["model name"]), " "), sum[:6])
}
