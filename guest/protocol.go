package guest

import (
	"time"

	"drover"
)

// What a Request asks.
const (
	// OpHello begins a session; its answer repeats the nonce.
	OpHello = "hello"
	// OpPing does nothing.
	OpPing = "ping"
	// OpStatus tells how the main process is.
	OpStatus = "status"
	// OpExec runs a command. Its answer comes when the command ended.
	OpExec = "exec"
	// OpCancel kills the command of the request Cancel. That request is answered as well.
	OpCancel = "cancel"
	// OpSignal sends the main process a signal.
	OpSignal = "signal"
	// OpStop begins an orderly end. Its answer comes at once.
	OpStop = "stop"
	// OpFreeze holds all writes to the file system of Volume, until OpThaw or until Timeout is over: the guest keeps the time
	// itself, so that no file system stays frozen because a host forgot it.
	OpFreeze = "freeze"
	// OpThaw ends it. Precondition when the time was over before.
	OpThaw = "thaw"
	// OpGrow makes the file system of Volume as large as its disk, once the disk has Size bytes.
	OpGrow = "grow"
	// OpPs lists the processes.
	OpPs = "ps"
	// OpClock sets the guest's wall clock to Time, if it is off by more than ClockSlack: it stood still while the machine was suspended.
	OpClock = "clock"
)

// The time that a file system is frozen for when a request does not say, and at most.
const (
	DefaultFreeze = 5 * time.Second
	MaxFreeze     = 30 * time.Second
)

// ClockSlack is how far a guest's clock may be off when OpClock leaves it alone.
const ClockSlack = 100 * time.Millisecond

// MaxOutput bounds what is kept of each output stream of a command.
const MaxOutput = 1 << 20

// MaxStdin bounds the input of a command.
const MaxStdin = 2 << 20

// MaxExecs bounds the commands that run in one machine at once.
const MaxExecs = 16

// DefaultExecTimeout is how long a command may run when its request does not say.
const DefaultExecTimeout = time.Minute

// Request is a message from the host. ID is the client's; the answer has the same.
type Request struct {
	ID     uint64 `json:"id"`
	Op     string `json:"op"`
	Nonce  string `json:"nonce,omitempty"`
	Cancel uint64 `json:"cancel,omitempty"`
	Signal string `json:"signal,omitempty"`
	// Volume is the name of a volume of the config (freeze, thaw, grow).
	Volume string       `json:"volume,omitempty"`
	Size   drover.Bytes `json:"size,omitempty"`
	// Timeout is until SIGKILL (stop), how long the command may run (exec), or until the guest thaws by itself (freeze).
	Timeout drover.Duration `json:"timeout,omitempty"`
	Argv    []string        `json:"argv,omitempty"`
	// Env is added to the machine's own.
	Env   []string `json:"env,omitempty"`
	Stdin []byte   `json:"stdin,omitempty"`
	// Time is what the clock is to be (clock).
	Time time.Time `json:"time,omitzero"`
	// Terminal gives the command a terminal, of the size (stream).
	Terminal     bool                `json:"terminal,omitempty"`
	TerminalSize drover.TerminalSize `json:"terminal_size,omitzero"`
}

// Answer is a message from the guest.
type Answer struct {
	ID     uint64             `json:"id"`
	Nonce  string             `json:"nonce,omitempty"`
	Error  *drover.Error      `json:"error,omitempty"`
	Exec   *drover.ExecResult `json:"exec,omitempty"`
	Status *Status            `json:"status,omitempty"`
	// Processes is the answer to ps.
	Processes []drover.Process `json:"processes,omitempty"`
}

// Status is how the guest is now.
type Status struct {
	Run string `json:"run"`
	// PID is the main process's, 0 when it does not run (any more).
	PID int `json:"pid"`
	// Stopping: an orderly end has begun.
	Stopping bool `json:"stopping,omitempty"`
	// Uptime is in seconds since the guest's kernel started.
	Uptime float64 `json:"uptime"`
	// DroppedLog counts the lines of the main process that could not be written to the log in time.
	DroppedLog uint64               `json:"dropped_log,omitempty"`
	Checks     []drover.CheckStatus `json:"checks,omitempty"`
}
