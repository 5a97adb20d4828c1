package drover

import "time"

// HostIdentity is what a host is to its fellows, allotted when it joins and never given to another: its name, its number (from which its private
// address is made) and its public key. The record is the proof: whoever has another Instance is another host.
type HostIdentity struct {
	Host   HostID `json:"host"`
	Number uint64 `json:"number"`
	// PrivateAddress is the host's own address in the fleet's network.
	PrivateAddress string `json:"private_address"`
	// Instance was made up by the host when it first started, and is kept in its data directory.
	Instance string `json:"instance"`
	// PublicKey is the host's WireGuard key, in base64; KeyNumber is how many it had before, NextKey the one that it is about to have instead.
	PublicKey string `json:"public_key"`
	KeyNumber uint64 `json:"key_number,omitempty"`
	NextKey   string `json:"next_key,omitempty"`
	// Rotation is the last change of the key.
	Rotation *KeyRotation `json:"rotation,omitempty"`
	// Boot is made up at each boot of the host, in a directory that does not outlive it. Of two that have the same data directory each has its own.
	Boot string `json:"boot,omitempty"`
	// Address is where it was when it joined.
	Address string    `json:"address"`
	Since   time.Time `json:"since"`
}

// HostMesh is how other hosts reach the machines of a host.
type HostMesh struct {
	Number         uint64 `json:"number"`
	PrivateAddress string `json:"private_address"`
	PublicKey      string `json:"public_key"`
	// KeyNumber is how many keys the host had before this one, NextKey the one that it is about to have instead.
	KeyNumber uint64 `json:"key_number,omitempty"`
	NextKey   string `json:"next_key,omitempty"`
	// PeopleKey is that by which people's peers know the host; empty when that is PublicKey.
	PeopleKey string `json:"people_key,omitempty"`
	// Endpoint is the IP address and UDP port that WireGuard listens on.
	Endpoint string `json:"endpoint"`
	// Public is a name or address and a port at which people reach it; empty when that is Endpoint.
	Public string `json:"public,omitempty"`
	// MTU is the largest packet that machines may send.
	MTU int `json:"mtu"`
}
