// Package sealedkeys keeps the keys of volumes in a store that many may read, such as a bucket of the bus: each is wrapped by the fleet key, and
// the fleet key is sealed to the certificate of each control host (internal/fleetca). It implements drover.KeyStore.
//
// The records, by their keys:
//
//	fleet         the fleet key's generations, each sealed for every control host; the last one is the one to wrap with
//	control.HOST  the certificate of a control host, so that others can seal for it
//	KEYID         the key of a volume, wrapped (AES-256-GCM, the key's ID as additional data)
//
// Invariants:
//
//   - Nothing that is stored tells a key to anybody but a control host.
//   - A fleet key is sealed only for hosts whose certificate says, by the CA's word, that they are control hosts.
//   - Every wrapped key is of a generation that is there. A generation is removed only when the store, read after the next one was made,
//     has no key of it; whoever wraps a key looks again, after having written it, whether its generation is still the last.
//   - A key that a record needs is never deleted: it is marked first, then it is looked for records that name it; whoever has written such a record
//     takes the mark away afterwards (ClaimKey), and the deletion is of the marked revision.
//   - A rotation may be cut anywhere and is finished by whoever comes next (Tend).
package sealedkeys
