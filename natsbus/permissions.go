package natsbus

import (
	"log/slog"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"drover"
	"drover/internal/fleetca"
)

// What the certificate of a host may do on an embedded server. Control hosts, by the CA's word, may do everything; a worker may say what is its own
// to say, answer what it is asked, and read what it needs. Whoever lets hosts read another bucket, or ask for something else, adds it here.

// hostReads are the buckets that hosts read, hostWatches those that they follow.
var (
	hostReads   = [...]string{BucketPlacements, BucketMachines, BucketMigrations, BucketStatus, BucketHosts, BucketVolumes, BucketWireGuard, BucketPolicies, BucketIdentities}
	hostWatches = [...]string{BucketPlacements, BucketMachines, BucketHosts, BucketStatus, BucketWireGuard, BucketPolicies, BucketIdentities}
)

// replyTime is how long a host may answer a request after it came.
const replyTime = 24 * time.Hour

// inboxPrefix is where a connection gets its answers: a place of the host's own, which others cannot listen at.
func inboxPrefix(name string) string { return nats.InboxPrefix + name }

// hostPermissions returns what a host may do.
func hostPermissions(host drover.HostID) *server.Permissions {
	id := string(host)
	publish := []string{
		seenSubject(id), controlSubject(">"), identitySubject(id), "$JS.API.INFO",
		"$KV." + BucketHosts + "." + id, "$KV." + BucketStatus + ".*." + id,
	}
	for _, bucket := range hostReads {
		stream := "KV_" + bucket
		// GetConfirmed and All prove by a write of their own that what they read is the newest; it is nobody's record.
		publish = append(publish, "$JS.API.STREAM.INFO."+stream, "$JS.API.STREAM.MSG.GET."+stream, "$KV."+bucket+"."+confirmKey)
	}
	for _, bucket := range hostWatches {
		publish = append(publish, consumerSubjects("KV_"+bucket)...)
	}
	// Snapshots are written, read and removed by the hosts that have their volumes, which may be any.
	publish = append(publish, StreamSnapshots+".>", "$JS.API.STREAM.INFO."+StreamSnapshots, "$JS.API.STREAM.MSG.GET."+StreamSnapshots,
		"$JS.API.DIRECT.GET."+StreamSnapshots, "$JS.API.DIRECT.GET."+StreamSnapshots+".>", "$JS.API.STREAM.PURGE."+StreamSnapshots)
	publish = append(publish, consumerSubjects(StreamSnapshots)...)
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publish},
		Subscribe: &server.SubjectPermission{Allow: []string{orderSubject(id, ">"), inboxPrefix(id) + ".>"}},
		Response:  &server.ResponsePermission{MaxMsgs: -1, Expires: replyTime},
	}
}

func consumerSubjects(stream string) []string {
	return []string{"$JS.API.CONSUMER.CREATE." + stream + ".>", "$JS.API.CONSUMER.CREATE." + stream, "$JS.API.CONSUMER.INFO." + stream + ".*",
		"$JS.API.CONSUMER.DELETE." + stream + ".*", "$JS.API.CONSUMER.MSG.NEXT." + stream + ".*", "$JS.FC." + stream + ".>"}
}

// certificates lets in whom the handshake has found to have a certificate of the fleet, with what the certificate allows.
type certificates struct{ log *slog.Logger }

var _ server.Authentication = certificates{}

// Check is server.Authentication's.
func (a certificates) Check(c server.ClientAuthentication) bool {
	state := c.GetTLSConnectionState()
	if state == nil {
		// The server takes no connection over the network without TLS: this is one within the process.
		inside := c.RemoteAddress() != nil && c.RemoteAddress().Network() == "pipe"
		if inside {
			c.RegisterUser(&server.User{Username: "this control host"})
		}
		return inside
	}
	host, err := fleetca.PeerHost(*state)
	if err != nil {
		a.log.Warn("a client of the bus is refused", "err", err)
		return false
	}
	user := &server.User{Username: "host " + string(host), Permissions: hostPermissions(host)}
	if fleetca.IsControl(state.PeerCertificates[0]) {
		user = &server.User{Username: "control host " + string(host)}
	}
	c.RegisterUser(user)
	return true
}
