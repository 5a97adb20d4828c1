package api_test

import (
	"strings"
	"testing"

	"drover"
	"drover/api"
	"drover/api/apitest"
)

const annsKey = "YW5uIGFubiBhbm4gYW5uIGFubiBhbm4gYW5uIGFubiE="

// everyOperationOfWireGuard asks each of the routes about people's peers.
func everyOperationOfWireGuard(s *server) {
	s.want(201, "POST", "/v1/wireguard_peers", `{"name":"ann","org_slug":"acme","public_key":"`+annsKey+`","region":"north"}`)
	s.want(200, "GET", "/v1/wireguard_peers?org_slug=acme", "")
	s.want(200, "GET", "/v1/wireguard_peers/ann?org_slug=acme", "")
	s.want(200, "POST", "/v1/wireguard_peers/ann/move?org_slug=acme", `{"host":"h2"}`)
	s.want(200, "DELETE", "/v1/wireguard_peers/ann?org_slug=acme", "")
}

// TestPeersAreTheirOrganizations: nobody sees or changes the peers of another organization, nor with a token that is for one app.
func TestPeersAreTheirOrganizations(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	made := decode[drover.WireGuardView](t, s.ask("POST", "/v1/wireguard_peers", apitest.AcmeToken, `{"name":"ann","public_key":"`+annsKey+`"}`))
	if made.Organization != "acme" || made.Address == "" {
		t.Fatalf("made %+v", made)
	}
	for what, ask := range map[string][3]string{
		"makes one for another": {"POST", "/v1/wireguard_peers", `{"name":"eve","org_slug":"acme","public_key":"` + annsKey + `"}`},
		"lists another's":       {"GET", "/v1/wireguard_peers?org_slug=acme", ""},
		"shows another's":       {"GET", "/v1/wireguard_peers/ann?org_slug=acme", ""},
		"moves another's":       {"POST", "/v1/wireguard_peers/ann/move?org_slug=acme", ""},
		"removes another's":     {"DELETE", "/v1/wireguard_peers/ann?org_slug=acme", ""},
	} {
		if w := s.ask(ask[0], ask[1], apitest.OtherToken, ask[2]); w.Code != 403 {
			t.Errorf("a stranger %s: %d %s", what, w.Code, w.Body)
		}
	}
	if w := s.ask("GET", "/v1/wireguard_peers/ann", apitest.OtherToken, ""); w.Code != 404 {
		t.Errorf("a stranger finds it: %d %s", w.Code, w.Body)
	}
	if list := s.ask("GET", "/v1/wireguard_peers", apitest.OtherToken, ""); strings.TrimSpace(list.Body.String()) != "[]" {
		t.Errorf("a stranger sees %s", list.Body)
	}
	if w := s.ask("POST", "/v1/wireguard_peers", apitest.AcmeToken, `{"name":"ann","public_key":"`+annsKey+`","psk":"x"}`); w.Code != 400 || !strings.Contains(w.Body.String(), "psk") {
		t.Errorf("a field that is not there: %d %s", w.Code, w.Body)
	}
}

// TestGraphPeers: what clients of the Machines API do to get into a private network.
func TestGraphPeers(t *testing.T) {
	s := newServer(t, api.Config{Backend: apitest.New()})
	shop(s)
	got := s.graph(apitest.AcmeToken, `mutation($input: AddWireGuardPeerInput!){addWireGuardPeer(input:$input){peerip endpointip pubkey}}`,
		map[string]any{"input": map[string]any{"organizationId": "acme", "name": "interactive-agent-1", "pubkey": annsKey, "nats": true, "region": "north"}})
	peer, _ := got.Data["addWireGuardPeer"].(map[string]any)
	ip, _ := peer["peerip"].(string)
	if len(got.Errors) > 0 || ip == "" || peer["endpointip"] != "192.0.2.1" || peer["pubkey"] == "" {
		t.Fatalf("added %+v", got)
	}
	got = s.graph(apitest.AcmeToken, `mutation{validateWireGuardPeers(input:{peerIps:["`+ip+`","fdaa::9:9"]}){invalidPeerIps}}`, nil)
	if answer, _ := got.Data["validateWireGuardPeers"].(map[string]any); len(answer["invalidPeerIps"].([]any)) != 1 {
		t.Errorf("validated %+v", got)
	}
	got = s.graph(apitest.AcmeToken, `{organization(slug:"acme"){wireGuardPeers{nodes{id name pubkey region peerip}} wireGuardPeer(name:"interactive-agent-1"){peerip gatewayStatus{live rx}}}}`, nil)
	org, _ := got.Data["organization"].(map[string]any)
	if list, _ := org["wireGuardPeers"].(map[string]any); len(got.Errors) > 0 || len(list["nodes"].([]any)) != 1 {
		t.Errorf("listed %+v", got)
	}
	got = s.graph(apitest.AcmeToken, `mutation{removeWireGuardPeer(input:{organizationId:"acme",name:"interactive-agent-1"}){organization{slug}}}`, nil)
	if len(got.Errors) > 0 {
		t.Errorf("removed %+v", got)
	}
	if s.refusal(apitest.OtherToken, `mutation{addWireGuardPeer(input:{organizationId:"acme",name:"x",pubkey:"`+annsKey+`"}){peerip}}`, nil) == "" {
		t.Error("a stranger is let in")
	}
}
