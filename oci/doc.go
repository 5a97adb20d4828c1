// Package oci turns container images into layers of the host's storage pool. An image is looked up once and pinned by digest; its
// layers are fetched, checked against the image's config, and written as one ext4 image (package ext4), which the storage daemon takes over
// as a read-only layer: the base of the root disks of all machines that run the image.
//
// # Names
//
//	busybox, registry.example:5000/team/app:tag, team/app@sha256:…   a registry (docker.io by default; plain HTTP for loopback
//	                                                                  and for the configured insecure registries)
//	oci:/path/to/layout[:tag]                                         an OCI image layout folder
//	tar:/path/to/file.tar[:tag]                                       a docker-save archive, or an OCI layout in a tar
//
// A path is read by whichever host needs the image, so it must lead to the same content on each. An image from a docker-save archive,
// which has no manifest, is pinned by the digest of its config (what "docker images" calls its ID).
//
// # Invariants
//
// The layer's name is made of the digest, the format version of the ext4 writer and the size of root disks; one name means the
// same bytes on every host. Nothing is ever unpacked on the host. A crash, an error or a full disk leaves temporary files in
// WorkDir at most, which the next New removes; a WorkDir belongs to one Store at a time.
//
// It never follows a tag again after Resolve, never runs anything of an image, and never deletes a layer.
package oci
