package dev

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"drover"
	"drover/internal/netdev"
)

// Mode is how hosts are kept apart.
type Mode string

// The modes. An empty Mode asks for the best that works.
const (
	ModeNamespaces Mode = "namespaces"
	ModeLoopback   Mode = "loopback"
)

// probeTimeout bounds the trial.
const probeTimeout = 20 * time.Second

// rackAttributes are the namespaces of the rack. It stays in the machine's network namespace, so that it can open the API's listener
// there and reach registries; its bridge is in one of its own (netdev.Namespace).
func rackAttributes(mode Mode) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true}
	if mode != ModeNamespaces {
		return a
	}
	a.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS
	if os.Geteuid() != 0 {
		a.Cloneflags |= syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return a
}

// hostAttributes are the namespaces of a host, inside those of the rack.
func hostAttributes(mode Mode) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true}
	if mode == ModeNamespaces {
		a.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS
	}
	return a
}

// chooseMode returns the mode to be used and why. A mode that was asked for and does not work is Precondition.
func chooseMode(ctx context.Context, exe string, want Mode) (Mode, string, error) {
	switch want {
	case ModeLoopback:
		return ModeLoopback, "it was asked for", nil
	case ModeNamespaces, "":
	default:
		return "", "", drover.Errorf(drover.Invalid, "the mode %q is not known", want).
			WithHint("use %s or %s", ModeNamespaces, ModeLoopback).WithField("mode")
	}
	err := tryNamespaces(ctx, exe)
	if err == nil {
		how := "a trial with them worked"
		if os.Geteuid() != 0 {
			how = "a trial with them worked, inside a user namespace"
		}
		return ModeNamespaces, how, nil
	}
	if want == ModeNamespaces {
		return "", "", drover.Errorf(drover.Precondition, "namespaces are not allowed here: %w", err).
			WithHint("use --mode %s, or run as root", ModeLoopback)
	}
	return ModeLoopback, fmt.Sprintf("namespaces are not allowed here: %v", err), nil
}

// tryNamespaces goes once through all that a rack and a host need, in processes that end at once.
func tryNamespaces(ctx context.Context, exe string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return runProbe(ctx, exe, "rack", rackAttributes(ModeNamespaces))
}

func runProbe(ctx context.Context, exe, part string, attributes *syscall.SysProcAttr) error {
	cmd := exec.CommandContext(ctx, exe, "dev", "probe", part)
	cmd.SysProcAttr = attributes
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(out.String()); text != "" {
			return fmt.Errorf("%s", text)
		}
		return err
	}
	return nil
}

// RunProbe is the trial's inside: part "rack" runs where a rack would and starts part "host" where a host would. It is started by Up,
// never by hand.
func RunProbe(ctx context.Context, exe, part string) error {
	switch part {
	case "host":
		if err := isolate("probe"); err != nil {
			return err
		}
		return netdev.StartLoopback()
	case "rack":
		ns, err := netdev.NewNamespace()
		if err != nil {
			return err
		}
		defer ns.Close()
		subnet := net.IPNet{IP: net.IPv4(10, 98, 0, gatewayNumber), Mask: net.CIDRMask(subnetBits, 32)}
		if err := ns.AddBridge(bridgeName, subnet); err != nil {
			return err
		}
		if err := ns.AddPair("a0", "b0"); err != nil {
			return err
		}
		if err := ns.Plug("b0", bridgeName); err != nil {
			return err
		}
		return runProbe(ctx, exe, "host", hostAttributes(ModeNamespaces))
	}
	return drover.Errorf(drover.Invalid, "the probe has no part %q", part)
}
