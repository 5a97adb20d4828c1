package host

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"drover"
)

// orderHandler answers one order.
type orderHandler func(ctx context.Context, request []byte) (any, error)

// handlers is the table of the orders that the agent answers.
func (a *Agent) handlers() map[drover.Order]orderHandler {
	return map[drover.Order]orderHandler{
		drover.OrderOffer:             typed(a.offer),
		drover.OrderResolve:           typed(a.resolve),
		drover.OrderApply:             typed(a.apply),
		drover.OrderExec:              typed(a.exec),
		drover.OrderSignal:            typed(a.signal),
		drover.OrderPs:                typed(a.ps),
		drover.OrderLogs:              typed(a.logs),
		drover.OrderInfo:              typed(a.infoOrder),
		drover.OrderLayers:            typed(a.layers),
		drover.OrderMeshRoutes:        typed(a.meshRoutes),
		drover.OrderMeshStatus:        typed(a.meshStatus),
		drover.OrderMeshPeers:         typed(a.meshPeers),
		drover.OrderMeshRotate:        typed(a.rotateKey),
		drover.OrderMeshCancel:        typed(a.cancelKey),
		drover.OrderVolumeCreate:      typed(a.volumeCreate),
		drover.OrderVolumeDestroy:     typed(a.volumeDestroy),
		drover.OrderVolumeSnapshot:    typed(a.volumeSnapshot),
		drover.OrderVolumeSnapshotEnd: typed(a.volumeSnapshotEnd),
		drover.OrderVolumeFork:        typed(a.volumeFork),
		drover.OrderVolumeForkEnd:     typed(a.volumeForkEnd),
		drover.OrderVolumeResize:      typed(a.volumeResize),
		drover.OrderVolumeLimits:      typed(a.volumeLimits),
		drover.OrderVolumeHydration:   typed(a.volumeHydration),
		drover.OrderVolumeVerify:      typed(a.volumeVerify),
		drover.OrderVolumeStatus:      typed(a.volumeStatus),
		drover.OrderStorageSettings:   typed(a.storageSettings),
		drover.OrderStandbyFreeze:     typed(a.standbyFreeze),
		drover.OrderStandbyRelease:    typed(a.standbyRelease),
		drover.OrderStandbyCopy:       typed(a.standbyCopy),
		drover.OrderStandbyDrop:       typed(a.standbyDrop),
		drover.OrderRecoveryMake:      typed(a.recoveryMake),
		drover.OrderRecoveryDrop:      typed(a.recoveryDrop),
		drover.OrderRecoveryKept:      typed(a.recoveryKept),
		drover.OrderMoveCheck:         typed(a.moveCheck),
		drover.OrderMoveReserve:       typed(a.moveReserve),
		drover.OrderMoveExport:        typed(a.moveExport),
		drover.OrderMoveClone:         typed(a.moveClone),
		drover.OrderMoveUndo:          typed(a.moveUndo),
		drover.OrderMoveWriteOff:      typed(a.moveWriteOff),
		drover.OrderMoveRound:         typed(a.moveRound),
		drover.OrderMoveCopy:          typed(a.moveCopy),
		drover.OrderMoveQuiesce:       typed(a.moveQuiesce),
		drover.OrderMoveFreeze:        typed(a.moveFreeze),
		drover.OrderMoveActivate:      typed(a.moveActivate),
		drover.OrderMoveProgress:      typed(a.moveProgress),
		drover.OrderMoveRelease:       typed(a.moveRelease),
		drover.OrderMoveAbort:         typed(a.moveAbort),
		drover.OrderMoveIncoming:      typed(a.moveIncoming),
		drover.OrderMoveLive:          typed(a.moveLive),
	}
}

// typed reads the request of a handler. A request that is not of its type is Invalid.
func typed[Q, A any](fn func(ctx context.Context, req Q) (A, error)) orderHandler {
	return func(ctx context.Context, request []byte) (any, error) {
		var req Q
		if len(bytes.TrimSpace(request)) > 0 {
			if err := json.Unmarshal(request, &req); err != nil {
				return nil, drover.Errorf(drover.Invalid, "cannot read the order's request: %w", err)
			}
		}
		answer, err := fn(ctx, req)
		if err != nil {
			return nil, drover.AsError(err)
		}
		return answer, nil
	}
}

// Handle answers one order as if it had come over the bus. It is safe for concurrent use while Run runs.
func (a *Agent) Handle(ctx context.Context, order drover.Order, request []byte) (any, error) {
	handler, ok := a.handlers()[order]
	if !ok {
		return nil, drover.Errorf(drover.Invalid, "host %q does not know the order %q", a.cfg.ID, order)
	}
	a.mu.Lock()
	running := a.group != nil
	a.mu.Unlock()
	if !running {
		return nil, drover.Errorf(drover.Unavailable, "the agent of host %q is not running", a.cfg.ID)
	}
	return handler(ctx, request)
}

// serve offers an order on the bus until ctx ends, whatever becomes of the bus meanwhile.
func (a *Agent) serve(ctx context.Context, order drover.Order, handler orderHandler) {
	for tries := 1; ctx.Err() == nil; tries++ {
		err := a.cfg.Bus.Serve(ctx, order, handler)
		wait := backoff(tries)
		if err == nil {
			<-ctx.Done() // a bus that subscribes and returns
			return
		}
		if ctx.Err() == nil {
			a.cfg.Log.Warn("cannot serve an order", "order", string(order), "err", err, "retry", wait)
		}
		pause(ctx, wait)
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
