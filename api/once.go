package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

// maxKey bounds an idempotency key, in bytes.
const maxKey = 255

// onceOf reads the key under which a request is to be carried out once; nil without one. A key belongs to who asks and to the app.
func onceOf(c *call, body any) (*fleet.Once, error) {
	key := c.r.Header.Get(apiv1.IdempotencyHeader)
	if key == "" {
		return nil, nil
	}
	if len(key) > maxKey {
		return nil, badField(apiv1.IdempotencyHeader, "has %d bytes; expected %d at most", len(key), maxKey)
	}
	data, err := json.Marshal(body)
	if err != nil {
		return nil, drover.Errorf(drover.Invalid, "cannot read the request's body: %w", err)
	}
	sum := sha256.Sum256(data)
	return &fleet.Once{Scope: fmt.Sprintf("%s %s %s %s", c.principal.Name, c.principal.Organization, c.app.Name, c.route.id), Key: key, Body: hex.EncodeToString(sum[:])}, nil
}

// onceRefused gives the refusal of a key that was used for another request its status.
func onceRefused(err error) error {
	if e := drover.AsError(err); e != nil && e.Code == drover.Invalid && e.Field == apiv1.IdempotencyHeader {
		return withStatus(http.StatusUnprocessableEntity, e)
	}
	return err
}
