package vhostuser

// The disk's limits.
const (
	sectorSize    = 512
	segMax        = 126     // with header and status a ring of 128, which is QEMU's default
	sizeMax       = 1 << 20 // of one buffer
	maxData       = segMax * sizeMax
	maxClear      = 1 << 21
	maxClearSegs  = 16
	clearSegment  = 16 // sector 8, num_sectors 4, flags 4
	physicalExp   = 3  // 4 KiB
	blkConfigSize = 60
)

// blkConfig is the disk's configuration space (virtio 1.2, 5.2.4). The cache mode is not the guest's to choose (no
// VIRTIO_BLK_F_CONFIG_WCE): a choice would be forgotten when the daemon restarts, and with it what the guest takes for durable.
func blkConfig(size int64, readOnly bool) []byte {
	b := make([]byte, maxConfig)
	order.PutUint64(b[0:], uint64(size)/sectorSize)
	order.PutUint32(b[8:], sizeMax)
	order.PutUint32(b[12:], segMax)
	order.PutUint32(b[20:], sectorSize)
	b[24] = physicalExp
	order.PutUint16(b[26:], 1<<physicalExp) // min_io_size, in blocks
	b[32] = 1                               // writeback
	order.PutUint16(b[34:], maxQueues)
	if !readOnly {
		order.PutUint32(b[36:], maxClear)
		order.PutUint32(b[40:], maxClearSegs)
		order.PutUint32(b[44:], 1<<physicalExp) // discard_sector_alignment
		order.PutUint32(b[48:], maxClear)
		order.PutUint32(b[52:], maxClearSegs)
		b[56] = 1 // write_zeroes_may_unmap
	}
	return b
}

// features are what the device offers.
func features(readOnly bool) uint64 {
	f := uint64(featSizeMax | featSegMax | featBlkSize | featTopology | featMQ | featFlush | featLogAll | featIndirect | featEventIdx | featProtocol | featVersion1)
	if readOnly {
		return f | featRO
	}
	return f | featDiscard | featWriteZeroes
}
