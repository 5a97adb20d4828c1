// Command drover runs the fleet's processes and is the command line to its API.
//
// It holds flags, output and wiring, and decides nothing: what is asked goes to the API through package client. stdout is the
// answer, stderr is progress and errors. Destroying asks first. Following something never ends it: Ctrl-C stops the following.
package main
