// Package manifest is the format of snapshots in the object store: what the objects are named, what is in them, and which of them
// some snapshots need. It reads and writes bytes and touches no store, no file and no clock.
//
// A snapshot is cut into chunks of 1 MiB. Chunks that hold only zeroes are left out; each other one is an object named after the SHA-256
// of its content, so that snapshots of one volume share what they have in common. The chunks of 4 GiB are listed by a page, which is an
// object named after its own SHA-256 too, and the pages of a snapshot by its manifest, which is named after the snapshot:
//
//	volumes/VOLUME/chunks/SHA256     one byte that tells how it is stored (0 as it is, 1 zstd), and the content
//	volumes/VOLUME/pages/SHA256      index -> SHA-256 of up to 4096 chunks
//	volumes/VOLUME/manifests/ID      size, cipher, pages; JSON
//
// Pages keep the memory that any volume needs small, whatever its size, and let snapshots share them: of a volume of 16 TiB the
// manifest has at most 4096 of them.
//
// Invariants, each with a test:
//
//   - What was encoded decodes to the same, and what decodes was encoded so: each manifest and page has one form.
//   - Whatever is decoded, the memory taken is bounded by the size of the input, and a chunk is never more than 1 MiB.
//   - A newer version, an unknown form and a wrong checksum are errors, never something else.
//   - What a manifest that is kept needs is never said to be deletable, nor is any object whose name is not known.
package manifest
