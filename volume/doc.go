// Package volume is the layer engine and the storage daemon around it (drover serve storage), with the client that the
// host agent uses.
//
// A layer is a sparse data file, a map of which 4 KiB blocks are present, perhaps a parent (an export of another host, or a frozen layer
// of this one) and perhaps a base (an image layer or a frozen layer of this host). A present block is read from the data file; an absent one from the parent if the
// parent's own part of the chain has it, else from the base, else it is zeroes. A layer without parent and base has no map, and costs
// nothing beyond its file.
//
// Invariants, each with a test named after it:
//
//   - The map on disk says "present" only of blocks whose data is durable: fdatasync of the data comes first.
//   - What was acknowledged survives the process: the live map is a file on tmpfs, mapped into memory, keyed by the boot and
//     by the layer's incarnation. What was flushed survives the host.
//   - A bit only ever goes from absent to present. The data file has a hole where a block is absent, except under the block's lock.
//   - A read of an absent block that the parent has waits for the parent, at most Config.ParentWait, then fails. It never returns
//     zeroes or the base's content instead.
//   - What is read, by a guest or another host, has the checksum that it was written with, where that is known, or is an error that names disk, layer and
//     offset. A checksum that is known is never wrong, whatever is written at the same time, killed, or loses its power.
//   - A hydration is done only when what was stored of the parent has the parent's checksums.
//   - Nothing is fetched from a parent before the layer was first opened or hydrated: until then the parent may still change.
//   - Of the layers of one disk one at most is open for writing, at an epoch not below the disk's fence. When Open, Fence, Freeze
//     or Close return, no write of an earlier writer can land any more.
//   - A frozen layer that was split off has exactly what was acknowledged at one moment, and keeps it while the layer over it is written.
//   - Whoever is killed during a split, before it or after: the layer holds the same, and the frozen layer is there as a whole or not at all.
//   - The same holds when a layer takes a frozen one in, or grows: its record is the only commit, and its guest sees a pause at most.
//   - Fences, open layers, exports and hydration are durable state: a daemon that starts again goes on where it was, without being told.
//   - After an fdatasync that failed nothing is reported as durable: the layer refuses writes and flushes until the daemon starts again.
//
// Names of NBD exports. On the unix socket (Config.RunDir/nbd.sock): LAYER@EPOCH is the layer that is open at that epoch,
// read-write; of several clients the newest that writes is the writer, connections of older ones are ended first, so that a request left
// over from a connection that a VM gave up cannot land after the VM sent it again. A client is a process: it may write over several
// connections that it has open together (multi-conn). LAYER is the layer read-only; of a layer
// that is open it gives each block as it is at that moment, which is no point in time as a whole. Over TLS: LAYER, read-only,
// for the hosts it is exported to (their certificate's common name is the host ID). What is served is always the composed view.
//
// A layer that is open is served over vhost-user-blk as well (package vhostuser), on a socket of its own that Open names
// (Attachment.VhostSocket), where the VMM listens and the daemon connects: the same rules of writers hold for both, and between them.
//
// Encrypted layers (drover.LayerSpec.Cipher) hold ciphertext, and so does all that leaves the host. Connections on the unix socket see
// plaintext; without the key, which Client.SetKey hands over, they are refused. A layer has the cipher of its parent and base.
//
// The package never decides who may own a disk; it enforces the epochs it is told. It talks to no control side.
package volume
