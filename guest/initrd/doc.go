// Package initrd makes the guest's initial RAM disk: a cpio archive ("newc") with drover-init, the kernel modules it loads and
// the tool that makes a file system on a blank volume.
//
// It reads the modules and the tool from the machine it runs on and writes one file. It is used at build time only; nothing of it
// is in the agent or in the guest.
//
// Invariant: the same inputs give the same archive, byte for byte (no times, no owners, no inode numbers of this machine).
package initrd
