package api

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"drover"
	"drover/apiv1"
)

// Bounds of what a client may ask to wait for.
const (
	maxWaitSeconds = 60
	maxStopWait    = 10 * time.Minute
	maxExecSeconds = 600
	maxLogWait     = 30 * time.Second
	maxLogTail     = 1000
)

func (h *handler) startMachine(c *call) (any, error) {
	before, err := h.machine(c)
	if err != nil {
		return nil, err
	}
	if _, err := h.backend.StartMachine(c.ctx(), c.app.Name, before.Machine.ID); err != nil {
		return nil, machineGone(c, err)
	}
	return apiv1.StartResult{PreviousState: before.Status.State}, nil
}

func (h *handler) stopMachine(c *call) (any, error) {
	var req apiv1.StopRequest
	if err := readBody(c.w, c.r, &req, true); err != nil {
		return nil, err
	}
	id, err := machineID(c)
	if err != nil {
		return nil, err
	}
	stop := drover.StopConfig{Timeout: req.Timeout}
	if req.Signal != "" {
		if stop.Signal, err = signalName("signal", req.Signal); err != nil {
			return nil, err
		}
	}
	_, err = h.backend.StopMachine(c.ctx(), c.app.Name, id, stop)
	return apiv1.OK{OK: true}, machineGone(c, err)
}

// signalName turns a name, with or without SIG, or a number into the name.
func signalName(field string, s apiv1.Signal) (string, error) {
	name := strings.ToUpper(string(s))
	if number, err := strconv.Atoi(name); err == nil {
		name = unix.SignalName(syscall.Signal(number))
	} else if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if name == "" || unix.SignalNum(name) == 0 {
		return "", drover.Errorf(drover.Invalid, "%s is %q; expected a signal's name such as \"SIGHUP\", or its number", field, string(s)).WithField(field)
	}
	return name, nil
}

func (h *handler) restartMachine(c *call) (any, error) {
	q := c.r.URL.Query()
	force, err := queryBool(q, "force_stop")
	if err != nil {
		return nil, err
	}
	timeout, err := queryDuration(q, "timeout", maxStopWait)
	if err != nil {
		return nil, err
	}
	stop := drover.StopConfig{Timeout: drover.Duration(timeout)}
	if text := q.Get("signal"); text != "" {
		if stop.Signal, err = signalName("signal", apiv1.Signal(text)); err != nil {
			return nil, err
		}
	}
	if force {
		stop.Signal = "SIGKILL"
	}
	id, err := machineID(c)
	if err != nil {
		return nil, err
	}
	_, err = h.backend.RestartMachine(c.ctx(), c.app.Name, id, stop)
	return apiv1.OK{OK: true}, machineGone(c, err)
}

func (h *handler) execMachine(c *call) (any, error) {
	var req apiv1.ExecRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	view, err := h.machine(c)
	if err != nil {
		return nil, err
	}
	order, err := execOrder(view.Machine.ID, req)
	if err != nil {
		return nil, err
	}
	result, err := h.backend.ExecMachine(c.ctx(), c.app.Name, order)
	if drover.Is(err, drover.Canceled) && c.ctx().Err() == nil { // not by the client: the command took longer than it may
		return nil, withStatus(http.StatusRequestTimeout, drover.AsError(err).WithHint("give it longer with timeout, %d s at most", maxExecSeconds))
	}
	if err != nil {
		return nil, err
	}
	text := func(b []byte) string {
		if req.Encoding == apiv1.EncodingBase64 {
			return base64.StdEncoding.EncodeToString(b)
		}
		return strings.ToValidUTF8(string(b), "\uFFFD")
	}
	return apiv1.ExecResult{ExitCode: result.ExitCode, ExitSignal: result.ExitSignal, Stdout: text(result.Stdout),
		Stderr: text(result.Stderr), Truncated: result.Truncated}, nil
}

func execOrder(id drover.MachineID, req apiv1.ExecRequest) (drover.ExecRequest, error) {
	command, field := req.Command, "command"
	if len(command) == 0 && req.Cmd != "" {
		field = "cmd"
		var err error
		if command, err = splitCommand(req.Cmd); err != nil {
			return drover.ExecRequest{}, err
		}
	}
	if len(command) == 0 || command[0] == "" {
		return drover.ExecRequest{}, drover.Errorf(drover.Invalid, "%s is empty; expected the command and its arguments", field).WithField(field)
	}
	if i := slices.IndexFunc(command, func(s string) bool { return strings.ContainsRune(s, 0) }); i >= 0 {
		return drover.ExecRequest{}, drover.Errorf(drover.Invalid, "%s[%d] contains a zero byte, which no argument can", field, i).WithField(field)
	}
	if req.Timeout < 0 || req.Timeout > maxExecSeconds {
		return drover.ExecRequest{}, drover.Errorf(drover.Invalid, "timeout is %d; expected seconds from 0 (which means 60) to %d",
			req.Timeout, maxExecSeconds).WithField("timeout")
	}
	stdin := []byte(req.Stdin)
	switch req.Encoding {
	case "":
	case apiv1.EncodingBase64:
		var err error
		if stdin, err = base64.StdEncoding.DecodeString(req.Stdin); err != nil {
			return drover.ExecRequest{}, drover.Errorf(drover.Invalid, "stdin is not base64: %w", err).WithField("stdin")
		}
	default:
		return drover.ExecRequest{}, drover.Errorf(drover.Invalid, "encoding is %q; expected \"\" or %q", req.Encoding, apiv1.EncodingBase64).
			WithField("encoding")
	}
	return drover.ExecRequest{Machine: id, Command: command, Stdin: stdin, Timeout: time.Duration(req.Timeout) * time.Second}, nil
}

func (h *handler) signalMachine(c *call) (any, error) {
	var req apiv1.SignalRequest
	if err := readBody(c.w, c.r, &req, false); err != nil {
		return nil, err
	}
	name, err := signalName("signal", req.Signal)
	if err != nil {
		return nil, err
	}
	view, err := h.machine(c)
	if err != nil {
		return nil, err
	}
	return apiv1.OK{OK: true}, h.backend.SignalMachine(c.ctx(), c.app.Name, drover.SignalRequest{Machine: view.Machine.ID, Signal: name})
}

func (h *handler) machineLogs(c *call) (any, error) {
	q := c.r.URL.Query()
	tail, err := queryInt(q, "tail", 0, 0, maxLogTail)
	if err != nil {
		return nil, err
	}
	from := int64(0)
	if q.Has("tail") {
		from = -1
	}
	offset, err := queryInt(q, "offset", from, -1, 1<<62)
	if err != nil {
		return nil, err
	}
	wait, err := queryDuration(q, "wait", maxLogWait)
	if err != nil {
		return nil, err
	}
	view, err := h.machine(c)
	if err != nil {
		return nil, err
	}
	host := q.Get("host")
	if err := needName("host", host, true); err != nil {
		return nil, err
	}
	answer, err := h.backend.MachineLogs(c.ctx(), c.app.Name, drover.LogsRequest{Machine: view.Machine.ID, Offset: offset, Tail: int(tail), Wait: wait,
		Host: drover.HostID(host)})
	if err != nil {
		return nil, err
	}
	if answer.Lines == nil {
		answer.Lines = []drover.LogLine{}
	}
	return apiv1.Logs{Lines: answer.Lines, Next: answer.Next, Host: answer.Host}, nil
}
