package drover

// PoolFloor is how much of a pool's file system guests leave free, for the records and maps of the host: what the operator set, else one
// per cent of it, at most 64 MiB.
func PoolFloor(total, set Bytes) Bytes {
	if set != 0 {
		return set
	}
	return min(total/100, 64*MiB)
}
