// Package hostconf is the configuration file of one host, host.json, which every `drover serve` process of the host reads: what the
// host is, where its directories are, and where it listens.
//
// It reads and checks; it never changes what it read beyond filling in defaults, and starts nothing. All mistakes of a file are
// reported together. Unknown fields are mistakes, so that a misspelt one is noticed.
package hostconf
