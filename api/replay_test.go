package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"drover"
	"drover/api"
	"drover/api/apitest"
	"drover/fleet"
)

// ask is one request of a client, with what the client must find in the answer to go on.
type ask struct {
	method, path, body string
	// nonce says that the client sends the nonce of the lease that it took last.
	nonce bool
	// status is the one that is expected; 0 means any success.
	status int
	// finds are paths that must be there and not null, with dots between the steps and numbers for places in lists. A path that ends in =VALUE must
	// have the value. Lists themselves, but for GraphQL, are told by a path that begins with a number.
	finds []string
	// bare says that the answer must be a list, and nothing around it.
	bare bool
	// keep names what is kept of the answer for later requests, by its path.
	keep map[string]string
	// before changes the world before the request.
	before func(*replay)
}

// command is what a command of the official client asks, in its order.
type command struct {
	name string
	asks []ask
}

// replay is a client that goes through commands.
type replay struct {
	t       *testing.T
	s       *server
	backend *apitest.Backend
	// kept are the values that stand for {name} in paths and bodies.
	kept map[string]string
}

// TestCommandsOfTheOfficialClient sends what the official client sends for each of its commands, in its order, and looks for what it needs to find.
func TestCommandsOfTheOfficialClient(t *testing.T) {
	backend := apitest.New()
	p := &replay{t: t, s: newServer(t, api.Config{Backend: backend}), backend: backend, kept: map[string]string{}}
	for _, c := range commands() {
		for i, a := range c.asks {
			if !p.send(fmt.Sprintf("%s, request %d", c.name, i+1), a) {
				break
			}
		}
	}
}

func (p *replay) fill(text string) string {
	for name, v := range p.kept {
		text = strings.ReplaceAll(text, "{"+name+"}", v)
	}
	return text
}

// send sends one request and looks at the answer.
func (p *replay) send(what string, a ask) bool {
	p.t.Helper()
	if a.before != nil {
		a.before(p)
	}
	r := newRequest(a.method, p.fill(a.path), p.fill(a.body))
	r.Header.Set("Authorization", "FlyV1 "+apitest.AcmeToken)
	if strings.HasPrefix(a.path, "/api/") {
		r.Header.Set("Authorization", "Bearer "+apitest.AcmeToken)
	}
	if a.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if a.nonce {
		r.Header.Set("fly-machine-lease-nonce", p.kept["nonce"])
	}
	w := p.s.send(r)
	if problem := p.judge(a, w); problem != "" {
		p.t.Errorf("%s: %s %s %s: %s\n%d %s", what, a.method, r.URL.RequestURI(), p.fill(a.body), problem, w.Code, w.Body)
		return false
	}
	return true
}

// judge says what the client would not get along with; empty for nothing.
func (p *replay) judge(a ask, w *httptest.ResponseRecorder) string {
	switch {
	case a.status != 0 && w.Code != a.status:
		return fmt.Sprintf("the status is not %d", a.status)
	case a.status == 0 && (w.Code < 200 || w.Code > 299):
		return "it is refused"
	}
	if len(a.finds) == 0 && len(a.keep) == 0 && !a.bare {
		return ""
	}
	var body any
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		return fmt.Sprintf("no JSON: %v", err)
	}
	if _, list := body.([]any); a.bare != list {
		return fmt.Sprintf("a bare list: %v, want %v", list, a.bare)
	}
	if problem := traps("", body); problem != "" {
		return problem
	}
	for _, find := range a.finds {
		path, want, exact := strings.Cut(find, "=")
		have := (gql{Data: map[string]any{"": body}}).at(steps(path)...)
		if have == nil || (exact && fmt.Sprint(have) != p.fill(want)) {
			return fmt.Sprintf("%s is %v", find, have)
		}
	}
	for name, path := range a.keep {
		v, ok := (gql{Data: map[string]any{"": body}}).at(steps(path)...).(string)
		if !ok || v == "" {
			return fmt.Sprintf("%s is no text", path)
		}
		p.kept[name] = v
	}
	return ""
}

func steps(path string) []any {
	all := []any{""}
	for _, s := range strings.Split(path, ".") {
		if len(s) == 1 && s[0] >= '0' && s[0] <= '9' {
			all = append(all, int(s[0]-'0'))
		} else {
			all = append(all, s)
		}
	}
	return all
}

// traps finds members of a type on which clients break: the whole list is then lost to them.
func traps(path string, v any) string {
	switch v := v.(type) {
	case []any:
		for i, item := range v {
			if problem := traps(fmt.Sprint(path, ".", i), item); problem != "" {
				return problem
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if problem := trap(key, v[key]); problem != "" {
				return path + "." + key + " " + problem
			}
			if problem := traps(path+"."+key, v[key]); problem != "" {
				return problem
			}
		}
	}
	return ""
}

func trap(key string, v any) string {
	number, isNumber := v.(float64)
	text, isText := v.(string)
	_, isBool := v.(bool)
	switch key {
	case "created_at", "updated_at", "createdAt", "exited_at":
		if v != nil && (!isText || len(text) < len("2026-03-01T12:00:00Z") || text[10] != 'T') {
			return fmt.Sprintf("is %v, want a time of RFC 3339", v)
		}
	case "timestamp": // of an event; that of a line of a log is a text
		if !isText && (!isNumber || number != float64(int64(number)) || number < 1e12) {
			return fmt.Sprintf("is %v, want milliseconds", v)
		}
	case "expires_at", "size_gb", "exit_code":
		if v != nil && !isNumber && !(key == "expires_at" && isText) {
			return fmt.Sprintf("is %v, want a number", v)
		}
	case "cordoned", "encrypted", "needs_restart":
		if v != nil && !isBool {
			return fmt.Sprintf("is %v, want true or false", v)
		}
	case "interval", "timeout", "grace_period":
		if isText && text != "" && strings.Trim(text, "0123456789") == "" {
			return fmt.Sprintf("is %q, a duration without a unit", text)
		}
	}
	return ""
}

// destroyedMachine makes the machine that is kept one that ended by itself, with a trace of it.
func destroyedMachine(p *replay) {
	p.backend.ChangeMachine(drover.MachineID(p.kept["m"]), func(v *fleet.MachineView) {
		v.Status.State = drover.StateDestroyed
		v.Status.Events = append(v.Status.Events, drover.Event{ID: "e1", Type: "exit", Status: drover.StateStopped, Source: "flyd", At: v.Machine.CreatedAt,
			Request: map[string]any{"exit_code": 0}})
	})
}

func machineState(state drover.MachineState) func(*replay) {
	return func(p *replay) {
		p.backend.ChangeMachine(drover.MachineID(p.kept["m"]), func(v *fleet.MachineView) { v.Status.State = state })
	}
}
