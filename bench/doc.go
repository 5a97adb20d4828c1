// Command bench measures Drover against its peers on the same machine, in the same run, in turn, and prints a table
// and one line of JSON per result. The peers are the real programs (qemu-nbd, nbdcopy, …) or Drover's own cheapest way to the same
// end (a stop and a start). A number alone says little on a shared machine: the ratio is the result.
//
//	bench [-run REGEXP] [-runs N] [-hydrate-gib N] [-drover PATH]
package main
