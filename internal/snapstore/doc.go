// Package snapstore reads and writes the objects of snapshots (package manifest) in an object store. What it returns is verified: a
// manifest, a page or a chunk whose SHA-256 is not the one that was asked for is fetched again, and then is an error.
//
// It decides nothing: the storage daemon decides what is uploaded, the control side what is deleted. Those two must not happen to one
// volume at the same time: Sweep deletes what no manifest that is kept needs, which is what an upload has stored so far.
//
// Memory is bounded: what is read at once is one object of its kind, and of the chunks of a volume with very many only a part is
// looked at at a time.
package snapstore
