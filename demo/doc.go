// Command demo shows Drover's main job, for a person to watch and for a script to judge: a fleet on this machine, a real
// virtual machine with a volume full of checksummed records that is appended to all the time, three moves of it, one of them
// under a kill of the source's agent, a power cut, and at the end a comparison of every record that was ever acknowledged.
//
// It types the commands that a user would type and prints what they print. What it knows of the machine comes from outside:
// acknowledgements are read from the files in which the hosts keep the machine's output, running VMs are counted in the
// process table. Its last line is one line of JSON; it exits non-zero when anything was lost, corrupt, or ran twice.
package main
