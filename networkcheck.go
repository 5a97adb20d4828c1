package drover

import "time"

// NetworkCheck is what all hosts believe of where machines are, beside where they are placed.
type NetworkCheck struct {
	// OK: every host could be asked, and believes what is so; no link is bad.
	OK    bool          `json:"ok"`
	Hosts []NetworkHost `json:"hosts"`
}

// NetworkHost is one host of a NetworkCheck.
type NetworkHost struct {
	Host HostID `json:"host"`
	// Problem says why the host could not be asked; Mesh is empty then.
	Problem string     `json:"problem,omitempty"`
	Mesh    MeshStatus `json:"mesh"`
	// Checked is how many machines it should know, Stale what it believes of them, or of others, that is not so.
	Checked int          `json:"checked"`
	Stale   []StaleRoute `json:"stale,omitempty"`
}

// StaleRoute is something that a host believes and that is not so, seen twice.
type StaleRoute struct {
	// Machine is empty for an address that no machine has.
	Machine MachineID `json:"machine,omitempty"`
	Address string    `json:"address"`
	// Believed is the host to which packets go, an address for one that nobody has, empty for none; Placed the host of the placement, empty for none.
	Believed string `json:"believed,omitempty"`
	Placed   HostID `json:"placed,omitempty"`
	// Since is when the placement became what it is, as far as the control host has seen that; else when it was first found that the host believes something else.
	Since time.Time `json:"since"`
}
