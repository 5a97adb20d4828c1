// Package boltstore keeps typed, versioned records in one bbolt file: the durable memory of one host's agent.
//
// It adds three things to bbolt: records are JSON with the version of their form beside them, a file is migrated by
// numbered steps and refused when a newer program wrote it, and a file that another process has open is refused with a text
// that says so, instead of a wait.
//
// Invariants: what Update returned nil for is on the disk (bbolt syncs each commit); a transaction is done wholly or not at
// all; a record of a newer version than the program knows is never read, overwritten or skipped, but reported as an error.
//
// It never interprets a record, starts no goroutine and knows nothing of machines.
package boltstore
