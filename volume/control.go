package volume

import (
	"context"
	"encoding/json"
	"net/http"

	"drover"
)

// The control socket speaks HTTP with JSON bodies: POST /v1/METHOD with a request, answered by 200 and the answer, or by the status of
// the error's code and a drover.Error.

// maxRequest bounds a request's body.
const maxRequest = 1 << 20

// layerRequest is the request of all methods but create, each using the fields it needs.
type layerRequest struct {
	Layer drover.LayerID `json:"layer,omitempty"`
	Disk  drover.DiskID  `json:"disk,omitempty"`
	Epoch drover.Epoch   `json:"epoch,omitempty"`
	Peer  drover.HostID  `json:"peer,omitempty"`
	Limit drover.Bytes   `json:"limit,omitempty"`
	// Token names what a layer is prepared for.
	Token string `json:"token,omitempty"`
	Path  string `json:"path,omitempty"`
	// Into is the layer that a split makes, Size what a layer grows to.
	Into     drover.LayerID          `json:"into,omitempty"`
	Size     drover.Bytes            `json:"size,omitempty"`
	Paused   bool                    `json:"paused,omitempty"`
	Wipe     bool                    `json:"wipe,omitempty"`
	Limits   drover.Limits           `json:"limits,omitzero"`
	Snapshot *drover.SnapshotSource  `json:"snapshot,omitempty"`
	Settings *drover.StorageSettings `json:"settings,omitempty"`
}

// keyRequest hands over a key.
type keyRequest struct {
	Key    drover.KeyID `json:"key"`
	Secret []byte       `json:"secret"`
}

// statusRefused is the HTTP status of every error: the client reads the error's code, which says more than a status could.
const statusRefused = http.StatusUnprocessableEntity

// handler answers on the control socket.
func (p *pool) handler() http.Handler {
	mux := http.NewServeMux()
	handle(p, mux, "create", func(ctx context.Context, spec drover.LayerSpec) (any, error) {
		return described(p.createLayer(ctx, spec))
	})
	handle(p, mux, "import", func(ctx context.Context, r layerRequest) (any, error) {
		return described(p.importImage(ctx, r.Layer, r.Path))
	})
	handle(p, mux, "open", func(ctx context.Context, r layerRequest) (any, error) { return p.open(ctx, r.Layer, r.Epoch) })
	handle(p, mux, "prepare", func(ctx context.Context, r layerRequest) (any, error) { return p.prepare(ctx, r.Layer, r.Token) })
	handle(p, mux, "unprepare", func(ctx context.Context, r layerRequest) (any, error) { return nil, p.unprepare(ctx, r.Layer, r.Token) })
	handle(p, mux, "flush", func(ctx context.Context, r layerRequest) (any, error) { return nil, p.flush(ctx, r.Layer) })
	handle(p, mux, "close", func(ctx context.Context, r layerRequest) (any, error) { return nil, p.closeLayer(ctx, r.Layer) })
	handle(p, mux, "fence", func(ctx context.Context, r layerRequest) (any, error) { return nil, p.fence(ctx, r.Disk, r.Epoch) })
	handle(p, mux, "freeze", func(ctx context.Context, r layerRequest) (any, error) { return p.freeze(ctx, r.Layer) })
	handle(p, mux, "thaw", func(ctx context.Context, r layerRequest) (any, error) { return nil, p.thaw(ctx, r.Layer) })
	handle(p, mux, "export", func(ctx context.Context, r layerRequest) (any, error) { return nil, p.export(ctx, r.Layer, r.Peer) })
	handle(p, mux, "unexport", func(ctx context.Context, r layerRequest) (any, error) { return nil, p.unexport(ctx, r.Layer, r.Peer) })
	handle(p, mux, "check-parent", func(ctx context.Context, r layerRequest) (any, error) { return nil, p.checkParent(ctx, r.Layer) })
	handle(p, mux, "hydrate", func(ctx context.Context, r layerRequest) (any, error) { return nil, p.hydrate(ctx, r.Layer, r.Limit) })
	handle(p, mux, "write-off", func(ctx context.Context, r layerRequest) (any, error) { return p.writeOff(ctx, r.Layer) })
	handle(p, mux, "delete", func(ctx context.Context, r layerRequest) (any, error) {
		return nil, p.deleteLayer(ctx, r.Layer, r.Wipe)
	})
	handle(p, mux, "upload", func(ctx context.Context, r layerRequest) (any, error) { return p.upload(ctx, r.Layer, r.Snapshot) })
	handle(p, mux, "split", func(ctx context.Context, r layerRequest) (any, error) { return p.split(ctx, r.Layer, r.Into) })
	handle(p, mux, "set-key", func(ctx context.Context, r keyRequest) (any, error) { return nil, p.setKey(ctx, r) })
	handle(p, mux, "resize", func(ctx context.Context, r layerRequest) (any, error) { return nil, p.resize(ctx, r.Layer, r.Size) })
	handle(p, mux, "pause-hydration", func(ctx context.Context, r layerRequest) (any, error) {
		return nil, p.pauseHydration(ctx, r.Layer, r.Paused)
	})
	handle(p, mux, "verify", func(ctx context.Context, r layerRequest) (any, error) {
		return described(p.verify(ctx, r.Layer, r.Snapshot))
	})
	handle(p, mux, "settings", func(ctx context.Context, r layerRequest) (any, error) { return nil, p.set(ctx, r.Settings) })
	handle(p, mux, "limit", func(ctx context.Context, r layerRequest) (any, error) { return nil, p.limit(ctx, r.Layer, r.Limits) })
	handle(p, mux, "layer", func(_ context.Context, r layerRequest) (any, error) { return p.statusOf(r.Layer) })
	handle(p, mux, "layers", func(context.Context, layerRequest) (any, error) { return p.statuses() })
	return mux
}

func described(l *layer, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return l.status()
}

// handle registers one method.
func handle[R any](p *pool, mux *http.ServeMux, method string, do func(context.Context, R) (any, error)) {
	mux.HandleFunc("POST /v1/"+method, func(w http.ResponseWriter, r *http.Request) {
		var req R
		var answer any
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
		dec.DisallowUnknownFields()
		err := dec.Decode(&req)
		if err != nil {
			err = drover.Errorf(drover.Invalid, "cannot read the request %s: %w", method, err)
		} else {
			answer, err = do(r.Context(), req)
		}
		status := http.StatusOK
		if err != nil {
			e := drover.AsError(err)
			status, answer = statusRefused, e
			p.cfg.Log.Debug("order refused", "order", method, "err", err)
		} else if answer == nil {
			answer = drover.Empty{}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			p.cfg.Log.Debug("cannot send an answer", "order", method, "err", err)
		}
	})
}
