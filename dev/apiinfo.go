package dev

import (
	"net/url"
	"strconv"

	"drover"
	"drover/internal/durable"
)

// APIInfo is what a client needs to reach the fleet's API. It is stored in api.json in the fleet's directory.
type APIInfo struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

// ReadAPIInfo reads how the API of the fleet in dir is reached. NotFound when no fleet has been brought up there.
func ReadAPIInfo(dir string) (APIInfo, error) { return readAPIInfo(paths(dir)) }

func readAPIInfo(p paths) (APIInfo, error) {
	var info APIInfo
	if err := durable.ReadJSON(p.api(), &info); err != nil {
		return info, drover.Errorf(drover.NotFound, "no fleet has been brought up in %q: %w", p.dir(), err).WithHint("drover dev up")
	}
	return info, nil
}

// port is the port in the URL, 0 when there is none.
func (a APIInfo) port() int {
	u, err := url.Parse(a.URL)
	if err != nil {
		return 0
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		return 0
	}
	return port
}
