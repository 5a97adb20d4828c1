// Package ramcopy copies the memory of a VM into that of another one, on another host, while the VM runs: in passes, each of which sends the pages
// that are not what was sent before. After a pass over a VM that stands still both memories are equal, whoever wrote to the first one, and however:
// nothing is asked of the VMM's own lists of changed pages.
//
// What was sent is known by a tag of each page, 16 bytes: GHASH (NIST SP 800-38D) under a random key that never leaves the Sender. Two pages that
// differ have the same tag with a probability of less than 2^-119, whatever they hold, so that no copy of the memory is kept on the source, and a guest
// cannot make such pages. It also takes half the memory reads that comparing with a copy would.
//
// Memories are files that can be read and written at any offset, with holes where nothing was ever written (memfd, tmpfs). Holes are neither read nor filled.
//
// # The wire
//
// The connection is authenticated and encrypted by whoever made it. All numbers are big endian.
//
//	receiver: "drvram1\n", size of the memory (8 bytes), length (2 bytes) and text of the state's address
//	sender:   frames: kind (1 byte), offset (8 bytes), length (8 bytes); after pages as many bytes
//	receiver: after each mark its offset (8 bytes), when everything before it is in the memory
//
// A receiver begins with an empty memory, on each connection: a Sender that does not know what arrived begins anew. It never writes again once it has
// answered the frame that ends the copy.
package ramcopy
