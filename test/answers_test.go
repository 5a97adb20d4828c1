package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"drover/internal/testkit/contract"
)

// published is where a copy of the published document of the Machines API may be: it is not part of this repository.
var published = filepath.Join("..", "..", "shared", "reference", "machines-api-2024-09.openapi.json")

// watchAnswers puts a proxy between the fleet and all who ask it in tests, which holds every answer against the OpenAPI documents. What it
// returns ends that, and tells which answers did not fit.
func (f *shared) watchAnswers() (unwatch func() error, err error) {
	data, err := os.ReadFile(filepath.Join(f.cli.Dir, "api.json"))
	if err != nil {
		return nil, err
	}
	var api struct{ URL, Token string }
	if err := json.Unmarshal(data, &api); err != nil {
		return nil, err
	}
	own, err := servedDocument(api.URL)
	if err != nil {
		return nil, err
	}
	machinesAPI, err := contract.Published(published, own)
	if err != nil {
		return nil, err
	}
	proxy, err := contract.NewProxy(api.URL, own, machinesAPI)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: proxy}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	f.cli.Env = []string{"DROVER_API_URL=http://" + listener.Addr().String(), "DROVER_API_TOKEN=" + api.Token}
	return func() error {
		server.Close() // those who still ask belong to nobody
		<-served
		if wrong := proxy.Wrong(); len(wrong) > 0 {
			return fmt.Errorf("%d answers do not fit the documents, among them:\n%s", len(wrong), strings.Join(wrong, "\n"))
		}
		seen := 0
		for _, n := range proxy.Seen() {
			seen += n
		}
		fmt.Fprintf(os.Stderr, "test: %d answers of %d kinds were held against the documents\n", seen, len(proxy.Seen()))
		return nil
	}, nil
}

func servedDocument(api string) (*contract.Document, error) {
	response, err := http.Get(api + "/v1/openapi.json")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var document bytes.Buffer
	if _, err := io.Copy(&document, response.Body); err != nil {
		return nil, err
	}
	return contract.Own(document.Bytes())
}
