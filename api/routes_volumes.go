package api

import (
	"net/http"

	"drover"
	"drover/apiv1"
)

const (
	volumesPath   = "/apps/{app_name}/volumes"
	volumePath    = volumesPath + "/{volume_id}"
	snapshotsPath = volumePath + "/snapshots"
)

func volumeRoutes() []route {
	return []route{
		{method: "GET", path: volumesPath, id: "Volumes_list", summary: "List an app's volumes", access: tenants,
			query:  []param{{"deleted", "boolean", "those that were destroyed and can be brought back, instead"}},
			status: http.StatusOK, response: []apiv1.Volume{}, handle: (*handler).listVolumes},
		{method: "POST", path: volumesPath, id: "Volumes_create", summary: "Create a volume: a blank one, one restored from a snapshot, or a fork",
			access: tenants, request: apiv1.CreateVolumeRequest{}, status: http.StatusOK, response: apiv1.Volume{}, handle: (*handler).createVolume},
		{method: "GET", path: volumePath, id: "Volumes_get_by_id", summary: "Show a volume", access: tenants,
			status: http.StatusOK, response: apiv1.Volume{}, handle: (*handler).showVolume},
		{method: "PUT", path: volumePath, id: "Volumes_update", summary: "Change a volume's snapshots or limits", access: tenants,
			request: apiv1.UpdateVolumeRequest{}, status: http.StatusOK, response: apiv1.Volume{}, handle: (*handler).updateVolume},
		{method: "DELETE", path: volumePath, id: "Volume_delete", summary: "Destroy a volume that no machine has; until its wipe_at it can be brought back",
			access: tenants, status: http.StatusOK, response: apiv1.Volume{}, handle: (*handler).destroyVolume},
		{method: "POST", path: volumePath + "/undelete", id: "Volumes_undelete", summary: "Bring a destroyed volume back", access: tenants,
			status: http.StatusOK, response: apiv1.Volume{}, handle: (*handler).undeleteVolume},
		{method: "PUT", path: volumePath + "/extend", id: "Volumes_extend", summary: "Make a volume larger, while its machine runs", access: tenants,
			request: apiv1.ExtendVolumeRequest{}, status: http.StatusOK, response: apiv1.ExtendVolumeResponse{}, handle: (*handler).extendVolume},
		{method: "POST", path: volumePath + "/verify", id: "Volumes_verify",
			summary: "Begin to compare a volume with its checksums or a snapshot, or tell how far that is", access: tenants,
			request: apiv1.VerifyRequest{}, optional: true, status: http.StatusOK, response: drover.Verification{}, handle: (*handler).verifyVolume},
		{method: "GET", path: volumePath + "/verify", id: "Volumes_show_verification", summary: "Show a volume's newest verification", access: tenants,
			status: http.StatusOK, response: drover.Verification{}, handle: (*handler).showVerification},
		{method: "PUT", path: volumePath + "/hydration", id: "Volumes_set_hydration", summary: "Limit, pause or resume the background copy of a volume",
			access: tenants, request: apiv1.HydrationRequest{}, status: http.StatusOK, response: apiv1.Volume{}, handle: (*handler).setHydration},
	}
}

func snapshotRoutes() []route {
	return []route{
		{method: "GET", path: "/apps/{app_name}/snapshots", id: "Snapshots_list", summary: "List the snapshots of all volumes of an app, those that are gone too, newest first",
			access: tenants, status: http.StatusOK, response: []apiv1.Snapshot{}, handle: (*handler).listAppSnapshots},
		{method: "GET", path: snapshotsPath, id: "Volumes_list_snapshots", summary: "List a volume's snapshots, newest first", access: tenants,
			status: http.StatusOK, response: []apiv1.Snapshot{}, handle: (*handler).listSnapshots},
		{method: "POST", path: snapshotsPath, id: "Volumes_create_snapshot", summary: "Take a snapshot of a volume; its way into the object store goes on afterwards",
			access: tenants, request: apiv1.CreateSnapshotRequest{}, optional: true, status: http.StatusOK, response: apiv1.Snapshot{},
			handle: (*handler).createSnapshot},
		{method: "GET", path: snapshotsPath + "/{snapshot_id}", id: "Volumes_show_snapshot", summary: "Show a snapshot", access: tenants,
			status: http.StatusOK, response: apiv1.Snapshot{}, handle: (*handler).showSnapshot},
		{method: "DELETE", path: snapshotsPath + "/{snapshot_id}", id: "Volumes_delete_snapshot", summary: "Delete a snapshot", access: tenants,
			status: http.StatusOK, response: apiv1.Snapshot{}, handle: (*handler).deleteSnapshot},
	}
}
