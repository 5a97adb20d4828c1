package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"drover"
	"drover/apiv1"
	"drover/client"
)

// movedLogs is an API with a log of one machine for each host; offsets are numbers of lines, and differ in what they mean from host to host.
type movedLogs struct {
	mu    sync.Mutex
	at    string
	logs  map[string][]string
	begin time.Time
	asked int
	// before is called before each answer, with its number.
	before func(n int)
}

func (m *movedLogs) write(text string) { m.logs[m.at] = append(m.logs[m.at], text) }

func (m *movedLogs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	m.before(m.asked)
	host := r.URL.Query().Get("host")
	if host == "" {
		host = m.at
	}
	log := m.logs[host]
	offset, err := strconv.Atoi(r.URL.Query().Get("offset"))
	if err != nil {
		offset = max(0, len(log)-1) // the tail
	}
	if offset > len(log) {
		offset = 0
	}
	answer := apiv1.Logs{Lines: []drover.LogLine{}, Next: int64(len(log)), Host: drover.HostID(host)}
	for _, text := range log[offset:] {
		var seconds int
		fmt.Sscanf(text, "%d", &seconds)
		answer.Lines = append(answer.Lines, drover.LogLine{At: m.begin.Add(time.Duration(seconds) * time.Second), Stream: "stdout", Text: text})
	}
	json.NewEncoder(w).Encode(answer)
}

// TestFollowLogsLosesAndRepeatsNothingOverMoves: what a machine wrote last where it was, and first where it is, comes once, also when it comes back.
func TestFollowLogsLosesAndRepeatsNothingOverMoves(t *testing.T) {
	m := &movedLogs{at: "h1", logs: map[string][]string{"h2": {"1 of an earlier stay"}}, begin: time.Now()}
	m.logs["h1"] = []string{"10 before", "100 a"}
	m.before = func(n int) {
		switch n {
		case 2:
			m.write("101 b")
		case 4:
			m.write("102 the last on h1")
			m.at = "h2"
			m.write("103 the first on h2")
			m.write("104 c")
		case 9:
			m.at = "h1"
			m.write("105 back on h1")
		}
	}
	c := connect(t, m, client.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	var got []string
	err := c.FollowLogs(ctx, "shop", "d0000000000001", client.LogsQuery{Tail: 1}, func(line drover.LogLine) error {
		if got = append(got, line.Text); strings.HasPrefix(line.Text, "105") {
			cancel()
		}
		return nil
	})
	want := []string{"100 a", "101 b", "102 the last on h1", "103 the first on h2", "104 c", "105 back on h1"}
	if !drover.Is(err, drover.Canceled) || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAppLogsAreMergedAndGoOn(t *testing.T) {
	backend, c, _ := serve(t)
	_, err := c.CreateMachine(t.Context(), "ledger", apiv1.CreateMachineRequest{Name: "two", Config: drover.MachineConfig{Image: "debian"}})
	if err != nil {
		t.Fatal(err)
	}
	backend.Log("a", "b") // both machines have it
	var got []string
	tell := func(line client.AppLogLine) error {
		got = append(got, line.Name+" "+line.Text)
		return nil
	}
	if err := c.AppLogs(t.Context(), "ledger", 3, false, tell); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || !slices.Contains(got, "two b") {
		t.Errorf("%q", got)
	}
	got = nil
	enough := errors.New("enough")
	err = c.AppLogs(t.Context(), "ledger", 1, true, func(line client.AppLogLine) error {
		if err := tell(line); err != nil {
			return err
		}
		if len(got) == 2 {
			backend.Log("c")
			if _, err := c.CreateMachine(t.Context(), "ledger", apiv1.CreateMachineRequest{Name: "three", Config: drover.MachineConfig{Image: "debian"}}); err != nil {
				return err
			}
		}
		if slices.Contains(got, "three c") && slices.Contains(got, "two c") && slices.Contains(got, "one c") {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || !slices.Contains(got, "two b") || !slices.Contains(got, "three a") {
		t.Errorf("%q, %v", got, err)
	}
}

// TestAppLogsTellWhatCanBeRead: a host that does not answer keeps its own machines' lines away, and is named.
func TestAppLogsTellWhatCanBeRead(t *testing.T) {
	backend, c, _ := serve(t)
	two, err := c.CreateMachine(t.Context(), "ledger", apiv1.CreateMachineRequest{Name: "two", Config: drover.MachineConfig{Image: "debian"}})
	if err != nil {
		t.Fatal(err)
	}
	backend.Log("a")
	asked := 0
	backend.Fail = func(method string) error {
		if method == "MachineLogs" {
			if asked++; asked == 2 {
				return drover.Errorf(drover.Unavailable, "host h2 does not answer")
			}
		}
		return nil
	}
	var got []string
	err = c.AppLogs(t.Context(), "ledger", 10, false, func(line client.AppLogLine) error {
		got = append(got, line.Name+" "+line.Text)
		return nil
	})
	if !slices.Equal(got, []string{"one a"}) || !drover.Is(err, drover.Unavailable) || !strings.Contains(err.Error(), string(two.ID)) {
		t.Errorf("%q, %v", got, err)
	}
}
