package drover

// OrderPs lists the processes of a started machine. PsRequest, []Process. Precondition while the machine does not run.
const OrderPs Order = "ps"

// PsRequest names a machine.
type PsRequest struct {
	Machine MachineID `json:"machine"`
}

// Process is one process in a guest.
type Process struct {
	PID int `json:"pid"`
	// STime and RTime are the time that it ran in the kernel and in all since it began, in milliseconds.
	STime int64 `json:"stime"`
	RTime int64 `json:"rtime"`
	// Command is the command line, or the name in the kernel of one that has none.
	Command   string `json:"command"`
	Directory string `json:"directory"`
	// CPU is the time that it had of CPUs, in milliseconds; RSS what it has in memory, in bytes.
	CPU           int64          `json:"cpu"`
	RSS           Bytes          `json:"rss"`
	ListenSockets []ListenSocket `json:"listen_sockets"`
}

// ListenSocket is where a process listens: "tcp" or "udp", and address and port.
type ListenSocket struct {
	Proto   string `json:"proto"`
	Address string `json:"address"`
}
