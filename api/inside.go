package api

import (
	"bytes"
	"encoding/json"
	"net/http"

	"drover"
	"drover/apiv1"
)

// inside asks another route of this API for the same client, with the client's own token: what is answered under another form can never be more
// than what the route itself would answer. body and answer may be nil. A refusal is returned as the route gave it.
func (h *handler) inside(c *call, method, path string, body, answer any) error {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return drover.Errorf(drover.Internal, "cannot ask %s %s: %w", method, path, err)
		}
	}
	r, err := http.NewRequestWithContext(c.ctx(), method, path, bytes.NewReader(data))
	if err != nil {
		return drover.Errorf(drover.Invalid, "cannot ask %s: %w", path, err)
	}
	r.Header.Set("Authorization", c.r.Header.Get("Authorization"))
	r.Header.Set(apiv1.RequestIDHeader, c.id)
	r.RemoteAddr = c.r.RemoteAddr
	w := &recorder{header: http.Header{}, status: http.StatusOK}
	h.ServeHTTP(w, r)
	if w.status >= http.StatusMultipleChoices {
		return w.refusal()
	}
	if answer == nil || w.body.Len() == 0 {
		return nil
	}
	if err := json.Unmarshal(w.body.Bytes(), answer); err != nil {
		return drover.Errorf(drover.Internal, "%s %s answered what cannot be read: %w", method, path, err)
	}
	return nil
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header         { return w.header }
func (w *recorder) WriteHeader(status int)      { w.status = status }
func (w *recorder) Write(b []byte) (int, error) { return w.body.Write(b) }

// refusal makes the error again that the answer was made of.
func (w *recorder) refusal() error {
	var e apiv1.ErrorResponse
	if err := json.Unmarshal(w.body.Bytes(), &e); err != nil || e.Code == "" {
		return drover.Errorf(drover.Internal, "a route answered %d with %q", w.status, w.body.String())
	}
	err := drover.Errorf(e.Code, "%s", e.Error).WithField(e.Field)
	if e.Hint != "" {
		err = err.WithHint("%s", e.Hint)
	}
	return &httpError{cause: err, status: w.status, word: e.Status}
}
