package qemu

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"drover"
)

// maxVolumes is how many disks fit on the machine's bus beside what every VM has.
const maxVolumes = 16

// maxSocketPath is what a unix socket's address can hold (unix(7)).
const maxSocketPath = 107

// checkDisk refuses a disk that cannot be attached.
func checkDisk(at drover.Attachment) error {
	switch at.Transport {
	case "", drover.TransportNBD:
		if at.Socket == "" || at.Export == "" {
			return errors.New("has no socket or no export")
		}
	case drover.TransportVhost:
		if !filepath.IsAbs(at.Socket) || len(at.Socket) > maxSocketPath {
			return fmt.Errorf("has the socket %q, which is not an absolute path of at most %d bytes", at.Socket, maxSocketPath)
		}
	default:
		return fmt.Errorf("is to be attached by %q, which is neither %s nor %s", at.Transport, drover.TransportNBD, drover.TransportVhost)
	}
	return nil
}

// check refuses a spec that QEMU could not run, or would misread.
func check(spec drover.VMSpec) error {
	if err := checkID(spec.Machine); err != nil {
		return err
	}
	refuse := func(format string, args ...any) error {
		return drover.Errorf(drover.Invalid, "machine %q: %s", spec.Machine, fmt.Sprintf(format, args...))
	}
	if spec.CPUs < 1 || spec.CPUs > 64 {
		return refuse("%d CPUs are not between 1 and 64", spec.CPUs)
	}
	if spec.MemoryMB < 64 || spec.MemoryMB > 1<<20 {
		return refuse("%d MB of memory are not between 64 and %d", spec.MemoryMB, 1<<20)
	}
	if len(spec.Volumes) > maxVolumes {
		return refuse("%d volumes are more than %d", len(spec.Volumes), maxVolumes)
	}
	if _, err := net.ParseMAC(spec.MAC); err != nil {
		return refuse("%v", err)
	}
	if len(spec.Tap) > 15 || strings.ContainsAny(spec.Tap, ",/ ") {
		return refuse("%q is not the name of a network device", spec.Tap)
	}
	if spec.Tap != "" { // QEMU would make a device that leads nowhere
		if _, err := net.InterfaceByName(spec.Tap); err != nil {
			return drover.Errorf(drover.Precondition, "machine %q: there is no network device %q on this host: %w", spec.Machine, spec.Tap, err)
		}
	}
	for i, v := range disks(spec) {
		if err := checkDisk(v); err != nil {
			return refuse("disk %d %v", i, err)
		}
	}
	for _, path := range []string{spec.ConfigPath, spec.ConsolePath, spec.LogPath, spec.StatusPath} {
		if !filepath.IsAbs(path) {
			return refuse("the path %q is not absolute", path)
		}
	}
	if !filepath.IsAbs(spec.AgentSocket) || len(spec.AgentSocket) > maxSocketPath {
		return refuse("the agent socket %q is not an absolute path of at most %d bytes", spec.AgentSocket, maxSocketPath)
	}
	return nil
}
