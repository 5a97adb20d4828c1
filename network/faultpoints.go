package network

// FaultPoints lists the places at which a fault can be armed (see package fault).
func FaultPoints() []string {
	return []string{pointFeed, pointKeyMade, pointKeyClaimed, pointKeyPromoted, pointKeyCanceled, pointKeyDropped}
}

// pointFeed is hit before each news of where a machine is: held there, a host goes on by what it believed.
const pointFeed = "network.feed"

// The steps of a rotation of this host's key, each when it is durable and nothing follows from it yet.
const (
	pointKeyMade     = "network.key.made"
	pointKeyClaimed  = "network.key.claimed"
	pointKeyPromoted = "network.key.promoted"
	pointKeyCanceled = "network.key.canceled"
	pointKeyDropped  = "network.key.dropped"
)
