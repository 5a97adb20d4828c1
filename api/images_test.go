package api_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"drover"
	"drover/api"
	"drover/api/apitest"
	"drover/apiv1"
	"drover/fleet"
)

// TestPathsOnTheHostsAreForOperators: who does not run the hosts is not told what is on their disks, whatever he names as an image. What an operator has
// named goes on being an image of the app.
func TestPathsOnTheHostsAreForOperators(t *testing.T) {
	backend := apitest.New()
	s := newServer(t, api.Config{Backend: backend})
	s.want(201, "POST", "/v1/apps", `{"app_name":"ledger","org_slug":"acme"}`)
	const machines = "/v1/apps/ledger/machines"
	denied := func(what string, w *httptest.ResponseRecorder, field string) {
		t.Helper()
		if got := decode[apiv1.ErrorResponse](t, w); w.Code != 403 || got.Field != field || got.Hint == "" {
			t.Errorf("%s: %d %+v", what, w.Code, got)
		}
	}
	ask := func(path, body string) *httptest.ResponseRecorder {
		return s.ask("POST", path, apitest.AcmeToken, body)
	}
	m := decode[apiv1.Machine](t, ask(machines, image))
	for _, path := range []string{"oci:/etc", "tar:/etc/passwd", "oci:/nowhere"} {
		config := fmt.Sprintf(`{"config":{"image":%q}}`, path)
		denied("a create of "+path, ask(machines, config), "config.image")
		denied("an update to "+path, ask(machines+"/"+string(m.ID), config), "config.image")
		denied("a deploy of "+path, ask("/v1/apps/ledger/deploys", fmt.Sprintf(`{"items":[{"action":"create","group":"app","config":{"image":%q}}]}`, path)), "items[0].config.image")
		if says := s.refusal(apitest.AcmeToken, `query($ref:String!){app(name:"ledger"){image(ref:$ref){digest}}}`, map[string]any{"ref": path}); !strings.Contains(says, "only operators") {
			t.Errorf("GraphQL about %s: %q", path, says)
		}
	}
	// An operator's token that was narrowed to less than to operate is no operator's here.
	_, ci, err := backend.MintToken(t.Context(), fleet.NewToken{Name: "ci", Operator: true, Caveats: drover.Caveats{drover.ReadCaveat("allow = deploy")}})
	if err != nil {
		t.Fatal(err)
	}
	denied("a narrowed operator", s.ask("POST", machines, ci, `{"config":{"image":"oci:/etc"}}`), "config.image")
	const named = `{"config":{"image":"oci:/images/shop"}}`
	theirs := decode[apiv1.Machine](t, s.want(200, "POST", machines, named))
	for _, path := range []string{machines + "/" + string(theirs.ID), machines} {
		if w := ask(path, named); w.Code != 200 {
			t.Errorf("what an operator has named: %d %s", w.Code, w.Body)
		}
	}
}
