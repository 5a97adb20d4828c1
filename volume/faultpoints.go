package volume

import "drover/vhostuser"

// FaultPoints lists every place at which a fault can be armed in the storage daemon (see package fault).
func FaultPoints() []string {
	return append(vhostuser.FaultPoints(),
		"volume.close.flushed",
		"volume.create.filled",
		"volume.create.installed",
		"volume.delete.renamed",
		"volume.fence.raised",
		"volume.flush.data-synced",
		"volume.flush.map-synced",
		"volume.hydrate.checkpoint",
		"volume.hydrate.complete",
		"volume.hydrate.copied",
		"volume.prepare.recorded",
		"volume.resize.committed",
		"volume.resize.ready",
		"volume.split.committed",
		"volume.split.prepared",
		"volume.split.ready",
		"volume.take-in.committed",
		"volume.take-in.copied",
		"volume.take-in.marked",
		"volume.unwanted.marked",
		"volume.upload.begun",
		"volume.upload.chunk",
		"volume.upload.confirmed",
		"volume.upload.done",
		"volume.upload.manifest",
		"volume.upload.page",
		"volume.upload.page-recorded",
		"volume.wipe.part",
		"volume.write-off.flushed",
		"volume.write-off.recorded",
	)
}
