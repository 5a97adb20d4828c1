// Package s3store is the object store behind the S3 API, of whichever server speaks it, by way of minio-go.
//
// No type of that library leaves it, and every error is a *drover.Error. Credentials are read from a file and appear in no error and in
// no log. A request is tried a few times within its context; what is left is Unavailable, and the caller's to try again.
package s3store
