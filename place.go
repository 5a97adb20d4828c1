package drover

// Place tells where machines would be placed, and why. Nothing is kept for them by it.
type Place struct {
	// Count is how many were asked for, Placed how many of them there is room for now.
	Count  int `json:"count"`
	Placed int `json:"placed"`
	// Missing says what there is no room for, in words; empty when everything is placed.
	Missing string `json:"missing,omitempty"`
	// Hosts is every worker host, those that would be used first.
	Hosts []PlaceHost `json:"hosts"`
}

// PlaceHost is one host as a place.
type PlaceHost struct {
	Host   HostID `json:"host"`
	Region Region `json:"region"`
	// Placed is how many of the machines would be here, Fits how many could.
	Placed int `json:"placed"`
	Fits   int `json:"fits"`
	// Reasons says why none can; empty when at least one can.
	Reasons []string `json:"reasons"`
	// SameApp is how many machines of the app are here already, Machines how many of all.
	SameApp  int `json:"same_app"`
	Machines int `json:"machines"`
	// What is left, as the host says. Zero where it was not asked or did not answer.
	MemoryFree Bytes   `json:"memory_free"`
	CPUsFree   float64 `json:"cpus_free"`
	DiskFree   Bytes   `json:"disk_free"`
}
