// Command pgnode is the main process of a member of the example's Postgres cluster. It starts PostgreSQL and repmgrd and keeps both as they should be:
// a first primary or a clone at the beginning, later a replica of whoever is the primary. It answers Drover's health check with the member's role, and
// hands the primary's role over when a drain asks for it.
//
// Who may be the primary is decided by voters, the members in the primary's region: a member becomes or stays the primary only with the
// grant of a majority of them, and a voter grants nobody who lacks what it has itself. A commit is acknowledged when the primary and one other voter have it.
// So whoever is granted has every acknowledged commit, whatever was lost. decide.go has these rules, without any I/O.
package main
