package qemu

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"drover"
)

// Files of the guest. An emulated CPU needs a second to unpack vmlinuz, and starts vmlinux at once by its PVH entry; a real one
// unpacks it in no time and gets randomised kernel addresses.
const (
	kernelTCG = "vmlinux"
	kernelKVM = "vmlinuz"
	initrd    = "initrd.img"
)

const (
	// reconnectDelay is how long, in seconds, the guest's I/O waits for a storage daemon that is away: a day. Anybody can mend a
	// daemon in that time; an error would make the guest's file system read-only at once.
	reconnectDelay = 86400
	// openTimeout is how long, in seconds, a start waits for a storage daemon that is just restarting.
	openTimeout = 5
	// codeCacheMiB bounds what TCG keeps of translated code, per VM.
	codeCacheMiB = 256
)

// escape doubles commas, which end a value in QEMU's option syntax.
func escape(value string) string { return strings.ReplaceAll(value, ",", ",,") }

// object is an argument in JSON form, where nothing needs escaping.
func object(fields map[string]any) string {
	b, err := json.Marshal(fields)
	if err != nil {
		panic(err) // maps of strings, numbers and booleans always have a JSON form
	}
	return string(b)
}

// memoryID names the guest's memory where it is shared with the storage daemon.
const memoryID = "ram"

// common is what every VM has, the trial too. Shared memory costs nothing, but a VM whose disks do not need it has none.
func (d *Driver) common(accel drover.Accel, memoryMB, cpus int, shared bool) []string {
	machine := d.machineType() + ",usb=off,vmport=off,smm=off,dump-guest-core=off"
	if shared {
		machine += ",memory-backend=" + memoryID
	}
	// With a strict boot order the firmware leaves the disks alone. Otherwise it begins to use every one of them, and the kernel may put
	// something else where the rings were while the iothread still looks at them: QEMU ends.
	args := []string{"-nodefaults", "-no-user-config", "-no-reboot", "-boot", "strict=on", "-display", "none", "-msg", "timestamp=on",
		"-machine", machine, "-m", strconv.Itoa(memoryMB), "-smp", strconv.Itoa(cpus)}
	if shared { // sealed by QEMU, so that it cannot shrink under the daemon
		args = append(args, "-object", object(map[string]any{"qom-type": "memory-backend-memfd", "id": memoryID, "size": memoryMB << 20, "share": true}))
	}
	if accel == drover.AccelKVM {
		return append(args, "-accel", "kvm", "-cpu", "host", "-kernel", d.guestFile(kernelKVM))
	}
	// TCG emulates "rep movsb" byte by byte: a guest kernel that is told of fast string operations (ERMS, FSRM) copies at a third of
	// the speed.
	return append(args, "-accel", fmt.Sprintf("tcg,thread=multi,tb-size=%d", codeCacheMiB), "-cpu", "max,erms=off,fsrm=off",
		"-kernel", d.guestFile(kernelTCG))
}

// commandLine is the kernel's; package guest says why each word is there.
func commandLine(accel drover.Accel) string {
	words := "console=ttyS0 quiet panic=-1 reboot=t pci=noacpi"
	if accel == drover.AccelTCG {
		words += " cryptomgr.notests initcall_blacklist=init_kprobe_trace,load_system_certificate_list,crypto_kdf108_init mitigations=off"
	}
	return words
}

// arguments is the whole command line of a VM.
func (d *Driver) arguments(spec drover.VMSpec) []string {
	id := spec.Machine
	args := append(d.common(d.accel, spec.MemoryMB, spec.CPUs, sharesMemory(spec)),
		"-name", "guest="+string(id)+",process=drover-vm",
		"-pidfile", d.path(id, pidFile),
		"-initrd", d.guestFile(initrd), "-append", strings.Join(append([]string{commandLine(d.accel)}, spec.KernelArgs...), " "),
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-chardev", "socket,id=qmp,server=on,wait=off,path="+escape(d.path(id, qmpFile)), "-mon", "chardev=qmp,mode=control",
		"-chardev", "socket,id=op,server=on,wait=off,path="+escape(d.path(id, opFile)), "-mon", "chardev=op,mode=control",
		"-chardev", "file,id=console,append=on,path="+escape(spec.ConsolePath), "-serial", "chardev:console",
		"-object", object(map[string]any{"qom-type": "iothread", "id": "io"}),
	)
	args = append(args, d.disk("root", spec.Root)...)
	args = append(args,
		"-blockdev", object(map[string]any{"driver": "raw", "node-name": "config", "read-only": true,
			"file": map[string]any{"driver": "file", "filename": spec.ConfigPath}}),
		"-device", object(map[string]any{"driver": "virtio-blk-pci", "drive": "config", "serial": "config"}))
	for i, v := range spec.Volumes {
		args = append(args, d.disk(fmt.Sprintf("volume%d", i), v)...)
	}
	args = append(args, links(spec)...)
	if spec.Incoming { // -S: what arrives stays paused until somebody knows that it may run here
		args = append(args, "-incoming", "defer", "-S")
	}
	return args
}

// disk attaches an export of the storage daemon. Errors go to the guest, ENOSPC too: what the guest's file system makes of
// them is the guest's to decide, while a paused VM would be a machine that stopped without saying so.
//
// The raw node between the device and the NBD client is what a disk can grow by: see VM.Resize.
func (d *Driver) disk(name string, at drover.Attachment) []string {
	if at.Transport == drover.TransportVhost {
		return vhostDisk(name, at)
	}
	client := name + firstClient
	return []string{
		"-blockdev", object(clientNode(client, at)),
		"-blockdev", object(diskNode(name, client)),
		"-device", object(map[string]any{"driver": "virtio-blk-pci", "drive": name, "serial": name, "iothread": "io", "write-cache": "on",
			"discard": true, "logical_block_size": 512, "physical_block_size": int(drover.BlockSize), "werror": "report", "rerror": "report"}),
	}
}

// vhostDisk attaches a disk of the storage daemon that reads and writes the guest's memory by itself. QEMU listens and the daemon connects: while the
// daemon is away the guest's requests wait, for as long as it takes, and when it is back they go on at once.
func vhostDisk(name string, at drover.Attachment) []string {
	return []string{
		"-chardev", fmt.Sprintf("socket,id=%s,server=on,wait=off,path=%s", name, escape(at.Socket)),
		"-device", object(map[string]any{"driver": "vhost-user-blk-pci", "id": "disk-" + name, "chardev": name, "config-wce": false}),
	}
}

// sharesMemory reports whether a disk of the VM needs the guest's memory to be shared.
func sharesMemory(spec drover.VMSpec) bool {
	for _, at := range disks(spec) {
		if at.Transport == drover.TransportVhost {
			return true
		}
	}
	return false
}

// disks are the VM's disks from the storage daemon.
func disks(spec drover.VMSpec) []drover.Attachment {
	return append([]drover.Attachment{spec.Root}, spec.Volumes...)
}

// links are the ways between the guest and the outside: ports, network, entropy, memory.
func links(spec drover.VMSpec) []string {
	args := []string{
		"-device", "virtio-serial-pci,id=ports",
		"-chardev", "socket,id=agent,server=on,wait=off,path=" + escape(spec.AgentSocket),
		"-device", "virtserialport,bus=ports.0,chardev=agent,name=drover.agent",
		"-chardev", "file,id=log,append=on,path=" + escape(spec.LogPath),
		"-device", "virtserialport,bus=ports.0,chardev=log,name=drover.log",
		"-chardev", "file,id=status,append=on,path=" + escape(spec.StatusPath),
		"-device", "virtserialport,bus=ports.0,chardev=status,name=drover.status",
	}
	if spec.Tap == "" {
		args = append(args, "-netdev", "user,id=net")
	} else {
		args = append(args, "-netdev", object(map[string]any{"type": "tap", "id": "net", "ifname": spec.Tap, "script": "no", "downscript": "no"}))
	}
	return append(args,
		"-device", object(map[string]any{"driver": "virtio-net-pci", "netdev": "net", "mac": spec.MAC, "romfile": ""}),
		"-object", object(map[string]any{"qom-type": "rng-random", "id": "rng", "filename": "/dev/urandom"}),
		"-device", "virtio-rng-pci,rng=rng",
		"-device", "virtio-balloon-pci,deflate-on-oom=on")
}
