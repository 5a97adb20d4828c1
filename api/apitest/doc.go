// Package apitest has a Backend for tests of the API, of its client and of the command line: the API's contract in memory, without a
// fleet behind it. A machine that is asked to start has started at once, on a host that is a name; a migration stays where it is
// until the test changes it. Nothing outside of tests imports it.
package apitest
