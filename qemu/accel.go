package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/internal/durable"
)

const (
	kvmDevice = "/dev/kvm"
	// kvmGetAPIVersion is KVM_GET_API_VERSION; every kernel since 2.6.22 answers kvmAPIVersion.
	kvmGetAPIVersion = 0xAE00
	kvmAPIVersion    = 12
	// trialTimeout bounds the trial under KVM, which takes half a second where KVM works.
	trialTimeout = 10 * time.Second
)

// chooseAccel takes the configured accelerator, or finds out by trying.
func (d *Driver) chooseAccel(ctx context.Context) error {
	switch d.cfg.Accel {
	case drover.AccelKVM, drover.AccelTCG:
		d.accel, d.reason = d.cfg.Accel, "set by the configuration"
		return nil
	case "":
	default:
		return drover.Errorf(drover.Invalid, "qemu: the accelerator %q is neither %q nor %q", d.cfg.Accel, drover.AccelKVM, drover.AccelTCG)
	}
	start := time.Now()
	err := probeKVM()
	if err == nil {
		err = d.trial(ctx, drover.AccelKVM, trialTimeout)
	}
	if ctx.Err() != nil {
		return drover.Errorf(drover.Canceled, "qemu: trying KVM was given up: %w", context.Cause(ctx))
	}
	took := time.Since(start).Round(time.Millisecond)
	if err != nil {
		d.accel, d.reason = drover.AccelTCG, fmt.Sprintf("%s cannot be used, so CPUs are emulated: %v (tried for %s)", kvmDevice, err, took)
	} else {
		d.accel, d.reason = drover.AccelKVM, fmt.Sprintf("%s: a trial boot of the guest's kernel worked (%s)", kvmDevice, took)
	}
	d.cfg.Log.Info("accelerator chosen", "accel", d.accel, "reason", d.reason)
	return nil
}

// probeKVM finds at once what makes a trial needless.
func probeKVM() (err error) {
	f, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	version, err := unix.IoctlRetInt(int(f.Fd()), kvmGetAPIVersion)
	if err != nil {
		return fmt.Errorf("it does not answer: %w", err)
	}
	if version != kvmAPIVersion {
		return fmt.Errorf("its API version is %d, not %d", version, kvmAPIVersion)
	}
	return nil
}

// trialGreeting is what the trial's user program prints.
const trialGreeting = "drover: user mode runs"

// trial boots the guest's kernel with a program of a few instructions as PID 1, which prints its greeting and resets.
// A BIOS, or a few instructions of our own, would not do: there are KVMs that run those and hang in a kernel's first page table.
func (d *Driver) trial(ctx context.Context, accel drover.Accel, timeout time.Duration) (err error) {
	dir, err := os.MkdirTemp(d.cfg.RunDir, ".trial-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	initrd := filepath.Join(dir, "initrd")
	if err := durable.WriteFile(initrd, trialInitrd(), 0o600); err != nil {
		return err
	}
	console := filepath.Join(dir, "console")
	args := append(d.common(accel, 128, 1, false), "-initrd", initrd, "-append", commandLine(accel),
		"-chardev", "file,id=console,path="+escape(console), "-serial", "chardev:console")
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.binary, args...)
	cmd.Dir = dir // a core dump goes away with it
	cmd.WaitDelay = time.Second
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err = cmd.Run()
	words := string(bytes.Join(bytes.Fields(said.Bytes()), []byte(" ")))
	if ctx.Err() != nil {
		return fmt.Errorf("the trial boot hung for %s", timeout)
	}
	if err != nil {
		return fmt.Errorf("the trial boot failed: %w: %.300s", err, words)
	}
	printed, err := os.ReadFile(console)
	if err != nil {
		return err
	}
	if !bytes.Contains(printed, []byte(trialGreeting)) {
		return fmt.Errorf("the trial boot ended before its program ran: %.300q", printed)
	}
	return nil
}
