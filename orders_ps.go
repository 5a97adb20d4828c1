package drover

// OrderPs lists the processes of a machine that runs. PsRequest, []Process.
const OrderPs Order = "machine.ps"

// PsRequest names the machine.
type PsRequest struct {
	Machine MachineID `json:"machine"`
}

// Process is one process of a machine.
type Process struct {
	PID int `json:"pid"`
	// STime is when it started, in seconds since 1970 by the guest's clock; RTime is for how many seconds it has run.
	STime uint64 `json:"stime"`
	RTime uint64 `json:"rtime"`
	// Command is its command line, Directory where it works.
	Command   string `json:"command"`
	Directory string `json:"directory"`
	// CPU is the time that it has computed, in milliseconds; RSS its memory, in bytes.
	CPU           uint64         `json:"cpu"`
	RSS           Bytes          `json:"rss"`
	ListenSockets []ListenSocket `json:"listen_sockets"`
}

// ListenSocket is an address at which a process takes connections (tcp) or packets (udp).
type ListenSocket struct {
	Proto   string `json:"proto"`
	Address string `json:"address"`
}
