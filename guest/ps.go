package guest

import (
	"context"

	"drover"
)

// Ps lists the processes of the guest. Precondition when the guest is too old to know how.
func (c *Client) Ps(ctx context.Context) ([]drover.Process, error) {
	answer, err := c.call(ctx, Request{Op: OpPs})
	if err != nil {
		return nil, tooOld(err, "list its processes")
	}
	if answer.Processes == nil {
		return []drover.Process{}, nil
	}
	return answer.Processes, nil
}
