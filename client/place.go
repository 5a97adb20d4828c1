package client

import (
	"context"

	"drover"
	"drover/apiv1"
)

// Place tells on which hosts machines of an app would be placed, and why not on others. Nothing is kept for them by it.
func (c *Client) Place(ctx context.Context, app drover.AppName, req apiv1.PlaceRequest) (drover.Place, error) {
	return post[drover.Place](ctx, c, req, "/apps/%s/machines/place", app)
}

// Regions lists the regions, and how much room they have.
func (c *Client) Regions(ctx context.Context) (apiv1.RegionsResponse, error) {
	return get[apiv1.RegionsResponse](ctx, c, nil, "/platform/regions")
}

// Placements tells in which regions machines would be placed. Exhausted when there is no room for all of them; the error says what is missing.
func (c *Client) Placements(ctx context.Context, req apiv1.PlacementsRequest) (apiv1.PlacementsResponse, error) {
	return post[apiv1.PlacementsResponse](ctx, c, req, "/platform/placements")
}

// IPAssignments lists the addresses of an app.
func (c *Client) IPAssignments(ctx context.Context, app drover.AppName) (apiv1.IPAssignmentsResponse, error) {
	return get[apiv1.IPAssignmentsResponse](ctx, c, nil, "/apps/%s/ip_assignments", app)
}

// Certificates lists the certificates of an app.
func (c *Client) Certificates(ctx context.Context, app drover.AppName) (apiv1.CertificatesResponse, error) {
	return get[apiv1.CertificatesResponse](ctx, c, nil, "/apps/%s/certificates", app)
}
