package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"drover"
	"drover/client"
)

// The environment variables that are read.
const (
	envAPI    = "DROVER_API_URL"
	envToken  = "DROVER_API_TOKEN"
	envDevDir = "DROVER_DEV_DIR"
	envNonce  = "DROVER_LEASE_NONCE"
)

// apiFile is the dev fleet's file that says where its API is.
type apiFile struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

// devDir returns the directory of the dev fleet.
func (c *cli) devDir() string {
	if c.dir != "" {
		return c.dir
	}
	if dir := c.getenv(envDevDir); dir != "" {
		return dir
	}
	return filepath.Join(c.getenv("HOME"), ".drover", "dev")
}

// connect finds the fleet: by the flags, else by the environment, else by the dev fleet's file. The file's token is used for
// the file's URL only.
func (c *cli) connect() (*client.Client, error) {
	url, token, err := c.where()
	if err != nil {
		return nil, err
	}
	return client.New(client.Config{BaseURL: url, Token: token, Nonce: c.leaseNonce(), Interval: c.interval})
}

// where finds the fleet's address and a token for it, which may be empty.
func (c *cli) where() (url, token string, err error) {
	url, token = c.api, c.token
	if url == "" {
		url = c.getenv(envAPI)
	}
	if token == "" {
		token = c.getenv(envToken)
	}
	if url == "" || token == "" {
		path := filepath.Join(c.devDir(), "api.json")
		file, err := readAPIFile(path)
		switch {
		case err == nil && (url == "" || url == file.URL):
			url = file.URL
			if token == "" {
				token = file.Token
			}
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return "", "", drover.Errorf(drover.Invalid, "cannot read the dev fleet's file %s: %w", path, err)
		case url == "":
			return "", "", drover.Errorf(drover.Precondition, "no fleet to talk to: neither --api nor %s is set, and there is no dev fleet's file %s", envAPI, path).
				WithHint("'drover dev up' starts a fleet on this machine")
		}
	}
	return url, token, nil
}

func readAPIFile(path string) (apiFile, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return apiFile{}, err
	}
	var file apiFile
	if err := json.Unmarshal(data, &file); err != nil {
		return apiFile{}, err
	}
	if file.URL == "" {
		return apiFile{}, errors.New("it has no url")
	}
	return file, nil
}
