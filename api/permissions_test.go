package api

import (
	"slices"
	"testing"

	"drover"
)

// TestEveryRouteNamesItsPermission: a route without one is shut for every token that is limited to classes of actions.
func TestEveryRouteNamesItsPermission(t *testing.T) {
	ids := map[string]bool{}
	for _, r := range append(routes(), webRoutes()...) {
		ids[r.id] = true
		if r.access != public && !slices.Contains(drover.Actions, r.need.action) {
			t.Errorf("%s %s (%s) names no permission: give it one in permissions.go", r.method, r.path, r.id)
		}
		reads := r.need.action == drover.ActFind || r.need.action == drover.ActLogs || r.need.action == drover.ActSelf || r.need.action == drover.ActAudit
		if reads && r.method != "GET" {
			t.Errorf("%s %s (%s) changes something, and has a permission that is for reading: %s", r.method, r.path, r.id, r.need.action)
		}
		if r.access != public && r.need.action == drover.ActOperate && r.access != operators {
			t.Errorf("%s is for operators by its permission, and for all by its access", r.id)
		}
	}
	for id := range needs() {
		if !ids[id] {
			t.Errorf("permissions.go has %q, which is no route", id)
		}
	}
}

func TestBearer(t *testing.T) {
	for header, want := range map[string][]string{
		"Bearer a": {"a"}, "FlyV1 a,b": {"a", "b"}, "bearer  a , b ,": {"a", "b"}, "Bearer FlyV1 a": {"a"}, "FlyV1 fm2_x,drvm_y,fm1r_z,fm1a_w": {"drvm_y"},
		"": nil, "Bearer": nil, "Bearer ,": nil, "Bearer fm2_x": nil, "Basic a": nil, "Bearer 1,2,3,4,5,6,7,8,9": nil,
	} {
		got, err := bearer(header)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: %q, %v", header, got, err)
		}
	}
}
