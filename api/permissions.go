package api

import (
	"reflect"
	"strings"

	"drover"
	"drover/apiv1"
)

// need is what a token must allow for a route.
type need struct {
	action drover.Action
	// wide routes show only what the token may see, so that tokens for single apps or machines may use them.
	wide bool
}

// needs has the permission of every route that does not name its own, by the route's ID. A route without one is open only to tokens that are not
// limited to classes of actions; a test fails for it.
func needs() map[string]need {
	all := map[string]need{
		"Apps_list": {drover.ActFind, true}, "Apps_show": {drover.ActFind, true}, "Machines_list": {drover.ActFind, true},
		"Web_organizations": {drover.ActFind, true}, "Web_organization": {drover.ActFind, true}, "Web_current_releases": {drover.ActRead, true},
		// The app is in the body, and looked for there.
		"Web_create_build": {drover.ActDeploy, true}, "Web_finish_build": {drover.ActDeploy, true}, "Web_create_release": {drover.ActDeploy, true},
		"Web_update_release": {drover.ActDeploy, true},
		"Machines_show":      {action: drover.ActFind}, "Machines_wait": {action: drover.ActFind}, "Web_promote_egress_ip": {action: drover.ActDeploy},
		"Whoami": {drover.ActSelf, true}, "Tokens_create": {drover.ActTokens, true}, "Audit_list": {drover.ActAudit, true},
	}
	for action, ids := range map[drover.Action]string{
		drover.ActApps: "Apps_create Apps_delete Apps_undelete WireGuard_create WireGuard_move WireGuard_remove",
		drover.ActRead: `Machines_list_events Machines_show_lease Machines_show_metadata Machines_list_versions Machines_list_processes Web_releases Web_current_release Deploys_list Deploys_show Secrets_list Secret_get
			Secretkeys_list Secretkey_get IPs_list Certificates_list Certificates_show Platform_regions Platform_placements Machines_place Volumes_list Volumes_get_by_id Volumes_show_verification Snapshots_list Volumes_list_snapshots
			Volumes_show_snapshot Standbys_list Volumes_list_standbys Volumes_show_standby
			Hosts_list Hosts_show Hosts_layers Hosts_machines Hosts_recovery_plan Hosts_kept Keys_list Migrations_list Migrations_show Migrations_check
			Migrations_phases Drains_list Drains_show Drains_plan Regions_check Recoveries_list Recoveries_show Network_check Hosts_key WireGuard_list WireGuard_show
			NetworkPolicies_list NetworkPolicies_show`,
		drover.ActLogs: "Machines_logs Web_logs",
		drover.ActExec: "Machines_exec Machines_exec_stream",
		drover.ActDeploy: `Machines_create Machines_update Machines_delete Machines_start Machines_stop Machines_restart Machines_signal Deploys_create Deploys_abort Secrets_update Secret_create Secret_delete
			Secretkey_set Secretkey_delete Secretkey_use Secretkey_set_typed Secretkey_generate_typed IPs_assign IPs_release Certificates_acme Certificates_custom Certificates_check Certificates_delete
			Certificates_delete_acme Certificates_delete_custom Machines_suspend Machines_cordon Machines_uncordon
			Machines_create_lease Machines_release_lease Machines_update_metadata Machines_delete_metadata
			Apps_set_metadata Apps_set_recovery Volumes_create Volumes_update Volume_delete Volumes_undelete Volumes_extend Volumes_verify
			Volumes_set_hydration Volumes_create_snapshot Volumes_delete_snapshot Volumes_create_standby Volumes_delete_standby
			NetworkPolicies_set NetworkPolicies_delete`,
		drover.ActOperate: `Keys_rotate Hosts_set_storage Migrations_create Migrations_undo Migrations_write_off Migrations_abort Drains_create Drains_pause Drains_resume Drains_abort
			Drains_approve Drains_return Hosts_cordon Hosts_uncordon Hosts_confirm_off Hosts_fence Hosts_release Hosts_rotate_key Hosts_cancel_key Recoveries_create`,
		drover.ActTokens: "Tokens_list Tokens_show Tokens_revoke Tokens_request_OIDC Tokens_request_Kms Tokenroots_list Tokenroots_rotate",
	} {
		for id := range strings.FieldsSeq(ids) {
			all[id] = need{action: action}
		}
	}
	return all
}

// withNeeds fills in what routes do not name themselves.
func withNeeds(routes []route) []route {
	table := needs()
	for i := range routes {
		if routes[i].need == (need{}) {
			routes[i].need = table[routes[i].id]
		}
	}
	return routes
}

// permission is what the call's principal must be allowed.
func (h *handler) permission(c *call) Permission {
	machine := drover.MachineID(c.r.PathValue("machine_id"))
	return Permission{Operators: c.route.access == operators,
		Need: h.guard.Need(c.r, c.route.need.action, drover.AppName(c.r.PathValue("app_name")), machine, c.route.need.wide)}
}

// changes reports whether the call is one for the audit trail: also a command in a machine that is begun by a GET, as WebSockets are. Leases are not: they change nothing, and clients that wait for one ask twice a second.
func (c *call) changes() bool {
	if c.route.id == "Machines_exec_stream" {
		return true
	}
	return c.r.Method != "GET" && c.r.Method != "HEAD" && c.route.id != "Machines_create_lease" && c.route.id != "Machines_release_lease"
}

// attempt is the call's entry in the audit trail. The object is the last thing that the path names.
func (h *handler) attempt(c *call) drover.AuditEntry {
	object, app := "", c.app
	for segment := range strings.SplitSeq(c.route.path, "/") {
		name, ok := strings.CutPrefix(segment, "{")
		if name = strings.TrimSuffix(name, "}"); ok && name != "app_name" {
			object = c.r.PathValue(name)
		}
	}
	if app.Name == "" {
		if name := c.r.PathValue("app_name"); drover.ValidName(name) { // refused: it may not even exist
			app.Name = drover.AppName(name)
		}
	}
	return h.guard.Attempt(c.r, c.id, c.route.id, c.principal, app, clip(object))
}

// clip bounds what a path says of an object.
func clip(object string) string { return object[:min(len(object), 64)] }

// made adds to an attempt what it made.
func made(attempt drover.AuditEntry, answer any) drover.AuditEntry {
	if app, ok := answer.(apiv1.App); ok && attempt.App == "" {
		attempt.App, attempt.Organization = app.Name, app.Organization.Slug
	}
	if token, ok := answer.(apiv1.CreatedToken); ok && token.Organization != "" {
		attempt.Organization = token.Organization
	}
	v := reflect.ValueOf(answer)
	if attempt.Object != "" || v.Kind() != reflect.Struct {
		return attempt
	}
	if id := v.FieldByName("ID"); id.IsValid() && id.Kind() == reflect.String {
		attempt.Object = clip(id.String())
	}
	return attempt
}
