// Package qemu starts, finds and ends VMs with qemu-system-x86_64. A VM belongs to nobody: it has a session of its own, writes its
// console, log and status files itself, and runs on when the process that started it ends. Whoever comes next finds it again.
//
// # What a running VM is
//
// RunDir/MACHINE/ exists from the start of a VM to its end:
//
//	lock       locked by the VM's own process, which got the open file when it was started: the lock lives exactly as long as
//	           the VM, so a host never runs two VMs of one machine, and "is it running" needs no process ID
//	pid        QEMU's process ID. It is believed only if that process has the lock file open, for process IDs are used again
//	qmp.sock   QEMU's control socket for the Driver; it takes one client at a time
//	op.sock    another one, for people
//	qemu.log   what QEMU itself said
//	send.json  where its memory is being sent, take.json where it is taken, of an emulated VM that moves: the next agent goes on with it
//
// # Accelerator
//
// New boots the real guest kernel once under KVM and takes KVM only if that boot ends as it should; there are hosts whose
// /dev/kvm runs a few instructions, or a BIOS, but no Linux kernel. Otherwise VMs are emulated (TCG), and the reason is told.
//
// # Disks
//
// QEMU is an NBD client of the storage daemon. When the daemon goes away, the guest's reads and writes wait for it for up to a day
// and then go on; when it answers with an error, the guest gets the error. The guest's flushes become NBD flushes.
//
// It knows nothing of images, layers, epochs or restart policies, and never signals a process that it has not identified.
package qemu
