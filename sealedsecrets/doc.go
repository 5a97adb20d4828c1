// Package sealedsecrets keeps the secrets of apps in a store that many may read, such as a bucket of the bus. It implements drover.SecretStore.
//
// There is one record per app, under the app's name. Each value in it is encrypted (AES-256-GCM, the app and the secret's name as additional data) with
// a key of the app's own, which a drover.KeyStore keeps: with the fleet's own one, only control hosts can read it. What the store tells everybody is
// names, times, and digests, which are keyed too, so that nobody can try values.
//
// Invariants:
//
//   - The version of an app's secrets is the revision of its record: it grows with each change, and a record that is made anew after it was
//     removed goes on above it.
//   - A key is made before the record that names it, and claimed after; a record that names a key is never without it.
//   - A change is one write. Nothing of it is seen before, and all of it after.
//   - No value and no key is in an error or a log.
package sealedsecrets
