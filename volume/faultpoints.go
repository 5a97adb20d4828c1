package volume

// FaultPoints lists every place at which a fault can be armed in the storage daemon (see package fault).
func FaultPoints() []string {
	return []string{
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
	}
}
