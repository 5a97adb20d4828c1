// Package ext4 writes an ext4 file system image straight from the layers of a container image: no staging directory, no mount,
// no root rights, no mkfs. A path of the input never becomes a path of the host, so an evil one can lead nowhere.
//
// The same calls make the same bytes, on every host and with every version of the tools there. That is what the package is
// for: a root disk is a writable layer over the image, and when a machine moves, the layer's blocks meet the image that the target host
// made by itself. FormatVersion changes whenever the bytes do; a golden test holds it to that.
//
// What it makes: 4 KiB blocks, extents, checksummed metadata (crc32c), a clean journal, sparse superblock backups. What was never
// written stays a hole in the file. It never makes a directory index (the kernel reads linear directories), and it never
// reads a file system.
//
// On-disk structures are those of the kernel's Documentation/filesystems/ext4.
package ext4
