package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

// fioSeconds is how long fio measures; half a second before it does not count.
const fioSeconds = 3

// fioLoad is one kind of load.
type fioLoad struct {
	name, rw, block string
	depth           int
	sequential      bool
}

// fioOutcome is what fio saw: the rate, and latencies from the submission of a request to its end.
type fioOutcome struct {
	iops     float64
	p50, p99 time.Duration
}

// run makes fio do the load on an NBD export.
func (l fioLoad) run(ctx context.Context, uri string) (fioOutcome, error) {
	cmd := exec.CommandContext(ctx, "fio", "--name="+l.name, "--ioengine=nbd", "--uri="+uri, "--rw="+l.rw, "--bs="+l.block,
		"--iodepth="+strconv.Itoa(l.depth), "--size="+strconv.FormatInt(int64(nbdSize), 10), "--randrepeat=0", "--time_based",
		"--ramp_time=500ms", "--runtime="+strconv.Itoa(fioSeconds), "--output-format=json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fioOutcome{}, fmt.Errorf("fio %s: %w: %s", l.name, err, stderr.Bytes())
	}
	return parseFio(out)
}

// parseFio takes the one job's numbers out of fio's JSON. fio may print notes before it.
func parseFio(out []byte) (fioOutcome, error) {
	type direction struct {
		Ops  float64 `json:"total_ios"`
		IOPS float64 `json:"iops"`
		Clat struct {
			Percentile map[string]float64 `json:"percentile"`
		} `json:"clat_ns"`
	}
	var report struct {
		Jobs []struct {
			Read  direction `json:"read"`
			Write direction `json:"write"`
		} `json:"jobs"`
	}
	begin := bytes.IndexByte(out, '{')
	if begin < 0 {
		return fioOutcome{}, errors.New("fio printed no JSON")
	}
	if err := json.Unmarshal(out[begin:], &report); err != nil {
		return fioOutcome{}, fmt.Errorf("fio's report: %w", err)
	}
	if len(report.Jobs) != 1 {
		return fioOutcome{}, fmt.Errorf("fio reports %d jobs, not one", len(report.Jobs))
	}
	d := report.Jobs[0].Read
	if d.Ops == 0 {
		d = report.Jobs[0].Write
	}
	if d.Ops == 0 {
		return fioOutcome{}, errors.New("fio reports that nothing was read or written")
	}
	return fioOutcome{iops: d.IOPS, p50: time.Duration(d.Clat.Percentile["50.000000"]), p99: time.Duration(d.Clat.Percentile["99.000000"])}, nil
}
