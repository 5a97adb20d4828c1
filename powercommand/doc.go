// Package powercommand switches hosts off by a program of the operator's: what his power controllers are asked by (ipmitool, a PDU's own client, a
// cloud's command line). Its success is taken for the certainty that the host is off.
package powercommand
