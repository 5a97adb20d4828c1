// Package frames is how a command that runs in a machine and whoever started it talk: frames of bytes that go both ways, from a client by way of
// the API, the bus and the host's agent to drover-init. Everybody between the two ends passes frames on as they are (Relay).
//
// No end sends more data than the other has room for: each has a Window for what it sends, and tells by frames of the kind Credit what it has
// taken in. So whoever passes frames on needs room for Window and no more, and never makes a sender wait that has other things to do.
//
// A stream begins with a request, which is not a frame, and ends with a frame of the kind Exit or Fail.
package frames
