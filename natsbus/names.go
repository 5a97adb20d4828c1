package natsbus

import (
	"strings"

	"drover"
)

// The buckets of the fleet. The table in ARCHITECTURE.md says who writes what.
const (
	BucketApps       = "apps"
	BucketMachines   = "machines"
	BucketPlacements = "placements"
	BucketStatus     = "status"
	BucketVolumes    = "volumes"
	BucketMigrations = "migrations"
	BucketHosts      = "hosts"
	BucketTokens     = "tokens"
	BucketLeases     = "leases"
	// BucketCounters has the numbers that networks and machines get; they only grow.
	BucketCounters = "counters"
	// BucketClaims has what must be unique besides the records' own keys: machine names, and the one migration of a machine.
	BucketClaims = "claims"
	// BucketIdentities has who each host is.
	BucketIdentities = "identities"
	// BucketKeys has the keys of volumes, wrapped: see package sealedkeys.
	BucketKeys      = "keys"
	BucketSnapshots = "snapshots"
	// BucketSecrets has the secrets of apps, encrypted: see package sealedsecrets.
	BucketSecrets = "secrets"
	// BucketTallies has what records counted for that are not kept any more.
	BucketTallies = "tallies"
	// BucketMarks has what closes hosts for new machines, BucketDrains the drains, BucketHalts the classes that no drain moves.
	BucketMarks  = "marks"
	BucketDrains = "drains"
	BucketHalts  = "halts"
	// BucketFences has the hosts that certainly write no volume any more, BucketRecoveries the machines that are started elsewhere,
	// BucketStandbys the copies of volumes that follow them.
	// BucketDeploys has the deploys of apps.
	BucketDeploys    = "deploys"
	BucketFences     = "fences"
	BucketRecoveries = "recoveries"
	BucketStandbys   = "standbys"
	// BucketMachineLeases has who may change a machine now, BucketVersions the configs that machines had, BucketRequests the requests
	// that carry a key against being carried out twice.
	BucketMachineLeases = "machine-leases"
	BucketVersions      = "versions"
	BucketRequests      = "requests"
	// BucketReleases has what clients say of their deployments, by app and version.
	BucketReleases = "releases"
	// BucketWireGuard has the peers of people: see PeerKey.
	BucketWireGuard = "wireguard"
	// BucketPolicies has what machines of an app may send and receive in their network, by app.
	BucketPolicies = "policies"
)

// seenSubject is where a host says that it lives, without anything being stored.
func seenSubject(host string) string { return "host." + host + ".seen" }

// orderSubject is where a host listens for an order.
func orderSubject(host, order string) string { return "host." + host + ".order." + order }

// controlSubject is where the control hosts listen for what other hosts ask of them.
func controlSubject(request string) string { return "control.request." + request }

// anyHost stands for every host in StatusKey, when a record is read.
const anyHost = "*"

// StatusKey is the key of what a host says of a machine. It ends in the host, so that the server can see to it that no other writes it.
func StatusKey(machine drover.MachineID, host drover.HostID) string {
	return string(machine) + "." + string(host)
}

// SplitStatusKey returns what StatusKey was made of; no host for a record of the first versions.
func SplitStatusKey(key string) (drover.MachineID, drover.HostID) {
	machine, host, _ := strings.Cut(key, ".")
	return drover.MachineID(machine), drover.HostID(host)
}

// peerKeys is what the keys of peers begin with in their bucket.
const peerKeys = "peer."

// PeerKey is the key of a person's peer. Under KeyOwner(its public key) is the same record, which proves that the key is this peer's alone.
func PeerKey(organization, name string) string { return peerKeys + organization + "." + name }

// IsPeerKey reports whether a key is one of PeerKey's.
func IsPeerKey(key string) bool { return strings.HasPrefix(key, peerKeys) }
