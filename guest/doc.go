// Package guest is the border between a host and what runs inside its VMs: the config that a guest boots with, the reports and
// the log that it writes, and the requests that it answers. drover-init (cmd/drover-init) is the other side and uses the same types.
//
// It starts no VM and decides nothing about machines. It keeps no state besides the files named here.
//
// # What the VMM must provide
//
// Disks are virtio-blk, in this order, with these serials (drover-init finds a disk by its serial, and by its place when it has
// none):
//
//	/dev/vda   serial "root"      ext4, read-write
//	/dev/vdb   serial "config"    raw and read-only: the file that WriteConfig wrote
//	/dev/vdc   serial "volume0"   the first of Config.Volumes; "volume1" and so on follow
//
// A disk over vhost-user-blk has its own name as its serial instead, "root_" and the hostname or the volume's name, at most 20 bytes of it.
//
// One virtio-serial controller has three ports, by name:
//
//	drover.agent    a unix socket that the VMM listens on (server=on,wait=off): Dial
//	drover.log      a file opened for appending: what the main process wrote, ReadLog
//	drover.status   a file opened for appending: what drover-init reports, TailStatus
//
// The network card is virtio-net (eth0). Entropy and memory ballooning are virtio-rng and virtio-balloon. The VMM ends when the guest
// resets or panics (-no-reboot), and its exit is the sign that the machine is off.
//
// # Kernel, initial RAM disk, command line
//
// script/bootstrap and script/build-guest leave in build/guest: vmlinux (the kernel unpacked, which QEMU starts by its PVH entry),
// vmlinuz (the same, packed), initrd.img (drover-init, modules, mke2fs, e2fsck; not compressed because that boots fastest). An
// emulated CPU (TCG) takes a second to unpack vmlinuz: give it vmlinux. With KVM either will do; vmlinuz also
// randomises the kernel's addresses.
//
// The command line. Always:
//
//	console=ttyS0 quiet     the kernel's own words go to the console file, and only the important ones: each character costs
//	panic=-1 reboot=t       a panic resets at once, and a reset ends the VM
//
// With machine type "pc", always:
//
//	pci=noacpi              the ACPI tables of "pc" make the kernel interpret 0.3 s of byte code per PCI device under TCG; the
//	                        BIOS' own interrupt table is as good. ("q35" and "microvm" do not need it.)
//
// With machine type "microvm" under TCG, always:
//
//	tsc_early_khz=2600000   without it the kernel hangs at random while it measures the clock
//
// Under TCG, because they take 0.5 to 1 s off a boot of 3.5 s together, and nothing that runs in the guest misses them:
//
//	cryptomgr.notests       no self-tests of the kernel's ciphers
//	initcall_blacklist=init_kprobe_trace,load_system_certificate_list,crypto_kdf108_init
//	                        no tracing by kprobes, no keys for module signatures (ours have none), no self-test of key derivation
//	mitigations=off         there is no speculation to guard against in an emulated CPU
//
// To see where the time of a boot goes:
//
//	drover_trace=1          drover-init says on the console when it does what
//
// # Order of reports
//
// A boot reports "booted" once (disks and network are ready), "started" once (the main process was executed), "checks" when a
// result changes, then "exited", then "poweroff" as the last thing before the VM ends. A boot that cannot get to its main process
// reports "failed" with the stage instead of "started" and "exited"; one that ran into its deadline ends without "poweroff". A
// main process that cannot be executed is "exited" with code 127 (not found) or 126 (not executable) and an error, without
// "started". With several processes "started" means that all were executed, and "exited" comes when the first of them ended, before the others
// were asked to. After SIGKILL of the VM any of these is missing at the end. Every report carries Config.Run, so that reports of an
// earlier boot in the same file are told apart.
package guest
