// Package vhostuser is a vhost-user backend for virtio-blk: it serves the content of a disk to a VMM (the frontend) that shares the
// memory of its guest, so that data moves between the guest's memory and the disk's file without a copy in between.
//
// The protocol is that of QEMU's docs/interop/vhost-user.rst, the rings and the disk those of virtio 1.2 (2.7 and 5.2): split rings with
// indirect descriptors and event indexes, several queues, discard and write-zeroes, a change of size while the guest runs. Little-endian
// hosts only, as the rings of virtio 1 are.
//
// A Device serves one connection. Its parts:
//
//   - The goroutine of Serve reads messages and changes the device.
//   - Each ring has a goroutine that waits for kicks in the system call itself (bell), takes requests, and does at once what needs no waiting (Trier). The rest goes to
//     workers, so that no request waits for another. There are never more requests than the rings have descriptors.
//   - Whoever has done a request puts it into the used ring. The guest is told at once, or of several together while it goes on with others
//     (holder), at most 300 us later. Nobody looks at a ring that is idle. The order of requests is the guest's business, as with any disk.
//
// Invariants, each with a test:
//
//   - Whatever the guest puts into its memory, nothing outside of the memory that the frontend shared is read or written. Descriptors and
//     headers are copied before they are looked at. A request that makes no sense gets an error status; a ring that makes none is stopped
//     until the guest resets it.
//   - Memory that could shrink under the mapping is refused: a page that is gone would end the process (SIGBUS).
//   - With in-flight tracking (VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) a request that was taken and not completed when the process died
//     is done again by the next one, in the order in which they were taken; none is completed twice.
//   - While the frontend logs dirty pages, whatever is written to guest memory is marked after it was written, and before the guest is told.
//   - When Stop or Serve has returned, nothing is read from or written to the guest's memory, and no call of the Backend runs.
//
// The package never decides who may write: the owner of the content ends the connection (Config.Gone, Stop).
package vhostuser
