package network

// FaultPoints lists the places at which a fault can be armed (see package fault).
func FaultPoints() []string { return []string{pointFeed} }

// pointFeed is hit before each news of where a machine is: held there, a host goes on by what it believed.
const pointFeed = "network.feed"
