package qemu

import (
	"strings"
	"testing"

	"drover"
)

func TestHostCPUTellsWhatGuestsRelyOn(t *testing.T) {
	const info = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: Intel(R)  Xeon\nflags\t\t: fpu vme avx\ncpu MHz\t\t: 2600\n\n" +
		"processor\t: 1\nflags\t\t: other\n"
	name := hostCPU(info)
	if !strings.HasPrefix(name, "Intel(R) Xeon (") {
		t.Errorf("it is called %q", name)
	}
	for change, same := range map[[2]string]bool{
		{"2600", "3100"}: true, {"fpu vme avx", "avx fpu vme"}: true, {"flags\t\t: other", "flags\t\t: more"}: true,
		{"avx", "avx avx2"}: false, {"85", "86"}: false, {"GenuineIntel", "AuthenticAMD"}: false,
	} {
		if got := hostCPU(strings.Replace(info, change[0], change[1], 1)); (got == name) != same {
			t.Errorf("%q instead of %q: %s, before %s", change[1], change[0], got, name)
		}
	}
}

func TestMachineTypeHasAVersion(t *testing.T) {
	m := machineRE.FindStringSubmatch("microvm   microvm (i386)\npc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)\npc-i440fx-7.2        Standard PC (default)\n")
	if len(m) != 2 || m[1] != "pc-i440fx-7.2" {
		t.Errorf("%q", m)
	}
	if got := (&Driver{version: "7.2.22", machine: "pc-i440fx-7.2"}).Platform(); got != "QEMU 7.2.22 pc-i440fx-7.2" {
		t.Error(got)
	}
}

func TestMigrationStates(t *testing.T) {
	for word, want := range map[string]drover.VMTransferState{"": drover.TransferNone, "none": drover.TransferNone, "setup": drover.TransferActive,
		"active": drover.TransferActive, "pre-switchover": drover.TransferPaused, "device": drover.TransferActive, "completed": drover.TransferDone,
		"failed": drover.TransferFailed, "cancelling": drover.TransferFailed, "cancelled": drover.TransferFailed, "new-in-qemu-99": drover.TransferActive} {
		if got := (migrationInfo{Status: word}).state(); got != want {
			t.Errorf("%q is %q, want %q", word, got, want)
		}
	}
}
