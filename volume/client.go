package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"

	"drover"
)

// maxAnswer bounds an answer of the daemon.
const maxAnswer = 64 << 20

// Client talks to the storage daemon of this host. Every method may be repeated, is durable when it returns, and is safe for
// concurrent use. Errors are *drover.Error: those of the daemon as they are, Unavailable when it does not answer.
type Client struct {
	socket string
	http   http.Client
}

// NewClient returns a client of the daemon whose control socket is at the path (Config.RunDir/storage.sock). It does not connect yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 4}}}
}

// call makes one request.
func (c *Client) call(ctx context.Context, method string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return drover.Errorf(drover.Invalid, "cannot encode the request %s: %w", method, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://storage/v1/"+method, bytes.NewReader(body))
	if err != nil {
		return drover.Errorf(drover.Internal, "cannot make the request %s: %w", method, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return c.noAnswer(ctx, method, err)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return c.noAnswer(ctx, method, err)
	}
	if resp.StatusCode != http.StatusOK {
		e := &drover.Error{}
		if err := json.Unmarshal(b, e); err != nil || e.Code == "" {
			return drover.Errorf(drover.Internal, "the storage daemon at %s answered %s to %s", c.socket, resp.Status, method)
		}
		return e
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return drover.Errorf(drover.Internal, "cannot read the storage daemon's answer to %s: %w", method, err)
	}
	return nil
}

func (c *Client) noAnswer(ctx context.Context, method string, err error) error {
	if ctx.Err() != nil {
		return drover.Errorf(drover.Canceled, "the storage daemon at %s had not answered to %s: %w", c.socket, method, context.Cause(ctx))
	}
	return drover.Errorf(drover.Unavailable, "the storage daemon at %s does not answer to %s: %w", c.socket, method, err)
}

// CreateLayer makes a layer, or finds that it is there already with the same spec; Exists if with another. A parent's address may differ
// from the first request's: the new one counts. Exhausted when the parent's data cannot fit.
func (c *Client) CreateLayer(ctx context.Context, spec drover.LayerSpec) (s drover.LayerStatus, err error) {
	err = c.call(ctx, "create", spec, &s)
	return s, err
}

// ImportImage takes over the raw disk image at path, which must be on the pool's file system, as a read-only layer; the path is gone
// then. When the image is there already the path is left alone.
func (c *Client) ImportImage(ctx context.Context, id drover.LayerID, path string) (s drover.LayerStatus, err error) {
	err = c.call(ctx, "import", layerRequest{Layer: id, Path: path}, &s)
	return s, err
}

// Open raises the disk's fence to the epoch and lets the layer be written at it. Conflict for an epoch below the fence, or when another
// layer of the disk is open at the epoch; Precondition for a frozen layer and an image.
func (c *Client) Open(ctx context.Context, id drover.LayerID, epoch drover.Epoch) (a drover.Attachment, err error) {
	err = c.call(ctx, "open", layerRequest{Layer: id, Epoch: epoch}, &a)
	return a, err
}

// Prepare names a vhost-user-blk socket for a layer that is not open yet, for a VM that waits for its memory: it is connected to, and its requests
// wait until Open. Whoever prepares again with the same token gets the same socket; it survives restarts of the daemon, and ends with
// Unprepare, with Close, and with an Open at another epoch than the first. Conflict when it is prepared with another token.
func (c *Client) Prepare(ctx context.Context, id drover.LayerID, token string) (a drover.Attachment, err error) {
	err = c.call(ctx, "prepare", layerRequest{Layer: id, Token: token}, &a)
	return a, err
}

// Unprepare takes the socket of a token away. No error when there is none.
func (c *Client) Unprepare(ctx context.Context, id drover.LayerID, token string) error {
	return c.call(ctx, "unprepare", layerRequest{Layer: id, Token: token}, nil)
}

// Flush makes durable what was written to a layer before, so that a Freeze that follows has little left to do.
func (c *Client) Flush(ctx context.Context, id drover.LayerID) error {
	return c.call(ctx, "flush", layerRequest{Layer: id}, nil)
}

// Close ends writing: connections that may write are ended, everything is flushed.
func (c *Client) Close(ctx context.Context, id drover.LayerID) error {
	return c.call(ctx, "close", layerRequest{Layer: id}, nil)
}

// Fence raises the fence of a disk, which need not have a layer here, and ends writers of lower epochs. An epoch below the fence
// changes nothing and is no error.
func (c *Client) Fence(ctx context.Context, disk drover.DiskID, epoch drover.Epoch) error {
	return c.call(ctx, "fence", layerRequest{Disk: disk, Epoch: epoch}, nil)
}

// Freeze ends writing for good: flushed, durable, Open is refused until Thaw. Allocated in the answer is what a full copy would transfer.
func (c *Client) Freeze(ctx context.Context, id drover.LayerID) (s drover.LayerStatus, err error) {
	err = c.call(ctx, "freeze", layerRequest{Layer: id}, &s)
	return s, err
}

// Thaw takes a Freeze back. Precondition when the disk's fence was raised since: another host may have written by then.
func (c *Client) Thaw(ctx context.Context, id drover.LayerID) error {
	return c.call(ctx, "thaw", layerRequest{Layer: id}, nil)
}

// Export lets the host peer read the layer over TLS, until Unexport.
func (c *Client) Export(ctx context.Context, id drover.LayerID, peer drover.HostID) error {
	return c.call(ctx, "export", layerRequest{Layer: id, Peer: peer}, nil)
}

// Unexport takes an export back and ends the connections of the host.
func (c *Client) Unexport(ctx context.Context, id drover.LayerID, peer drover.HostID) error {
	return c.call(ctx, "unexport", layerRequest{Layer: id, Peer: peer}, nil)
}

// CheckParent reads one block from the layer's parent and keeps nothing. No error for a layer that needs no parent.
func (c *Client) CheckParent(ctx context.Context, id drover.LayerID) error {
	return c.call(ctx, "check-parent", layerRequest{Layer: id}, nil)
}

// Hydrate starts or goes on with the background copy, at most limit bytes per second (0: no limit). The layer's parent must not change
// any more. No error for a layer that needs no parent.
func (c *Client) Hydrate(ctx context.Context, id drover.LayerID, limit drover.Bytes) error {
	return c.call(ctx, "hydrate", layerRequest{Layer: id, Limit: limit}, nil)
}

// WriteOff gives up what has not come from the layer's parent on another host, for good: reads of it fail until it is written. LayerStatus.Hydration names what. No error
// for a layer that needs no parent; Precondition for one that is filled from something else.
func (c *Client) WriteOff(ctx context.Context, id drover.LayerID) (s drover.LayerStatus, err error) {
	err = c.call(ctx, "write-off", layerRequest{Layer: id}, &s)
	return s, err
}

// Delete removes a layer. Precondition while it is open, exported or the base of another. A layer that is not there is no error.
func (c *Client) Delete(ctx context.Context, id drover.LayerID) error {
	return c.call(ctx, "delete", layerRequest{Layer: id}, nil)
}

// Split freezes what the layer holds at this moment as the new layer into, and makes the layer one over it. The writer goes on, and sees
// a pause of some milliseconds. The moment lies between the call and the answer; every write that was acknowledged before it is in, none
// that was sent after it. Delete of the frozen layer makes the layer take its blocks in again.
func (c *Client) Split(ctx context.Context, id, into drover.LayerID) (s drover.LayerStatus, err error) {
	err = c.call(ctx, "split", layerRequest{Layer: id, Into: into}, &s)
	return s, err
}

// Resize makes a layer larger, at once and for its writer too. Invalid for a smaller size; Precondition for a frozen layer and an image.
func (c *Client) Resize(ctx context.Context, id drover.LayerID, size drover.Bytes) error {
	return c.call(ctx, "resize", layerRequest{Layer: id, Size: size}, nil)
}

// Limit bounds what the layer's writer may do per second, from now on.
func (c *Client) Limit(ctx context.Context, id drover.LayerID, limits drover.Limits) error {
	return c.call(ctx, "limit", layerRequest{Layer: id, Limits: limits}, nil)
}

// PauseHydration stops the background copy, or lets it go on. Reads of absent blocks are served in any case.
func (c *Client) PauseHydration(ctx context.Context, id drover.LayerID, paused bool) error {
	return c.call(ctx, "pause-hydration", layerRequest{Layer: id, Paused: paused}, nil)
}

// Settings sets what holds for the host's storage as a whole.
func (c *Client) Settings(ctx context.Context, settings drover.StorageSettings) error {
	return c.call(ctx, "settings", layerRequest{Settings: &settings}, nil)
}

// Upload starts or goes on with copying a frozen layer into the object store as a snapshot; LayerStatus.Upload tells how far it is. Of the
// source only Snapshot and Volume are needed.
func (c *Client) Upload(ctx context.Context, id drover.LayerID, snapshot drover.SnapshotSource) (s drover.LayerStatus, err error) {
	err = c.call(ctx, "upload", layerRequest{Layer: id, Snapshot: &snapshot}, &s)
	return s, err
}

// Verify begins to compare the layer with its checksums, or with a snapshot when one is given, and answers how far a comparison is that
// runs already, or how the last one ended when it was begun after since.
func (c *Client) Verify(ctx context.Context, id drover.LayerID, against *drover.SnapshotSource) (s drover.LayerStatus, err error) {
	err = c.call(ctx, "verify", layerRequest{Layer: id, Snapshot: against}, &s)
	return s, err
}

// SetKey hands the daemon a key. It is kept in the run directory, so that it outlives the daemon and not the host.
func (c *Client) SetKey(ctx context.Context, id drover.KeyID, key []byte) error {
	return c.call(ctx, "set-key", keyRequest{Key: id, Secret: key}, nil)
}

// Wipe is Delete that makes the data unreadable first: it is overwritten, in the background, before its space is given back.
func (c *Client) Wipe(ctx context.Context, id drover.LayerID) error {
	return c.call(ctx, "delete", layerRequest{Layer: id, Wipe: true}, nil)
}

// Layer describes a layer.
func (c *Client) Layer(ctx context.Context, id drover.LayerID) (s drover.LayerStatus, err error) {
	err = c.call(ctx, "layer", layerRequest{Layer: id}, &s)
	return s, err
}

// Layers describes all layers, also those that are refused because their files are damaged: these have only ID and Trouble.
func (c *Client) Layers(ctx context.Context) (s []drover.LayerStatus, err error) {
	err = c.call(ctx, "layers", layerRequest{}, &s)
	return s, err
}
