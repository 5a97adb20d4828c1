package drover

import "strings"

// memoryDiskPrefix begins the name of the disk that a machine's memory is kept on.
const memoryDiskPrefix = "mem_"

// MemoryDisk returns the identity of the disk that holds the memory of a suspended machine ("mem_<machine>"). It is a disk like others:
// layers of it are encrypted, exported, cloned and fenced as those of a volume are.
func MemoryDisk(m MachineID) DiskID { return DiskID(memoryDiskPrefix + string(m)) }

// HoldsMemory reports whether the disk is that of a suspended machine's memory.
func (d DiskID) HoldsMemory() bool { return strings.HasPrefix(string(d), memoryDiskPrefix) }
