// Package lint holds the house rules that no general tool checks, as tests over the source of the whole module: who may import whom
// (the table in ARCHITECTURE.md), and what may not be written where. It has no code of its own and is imported by nobody.
package lint
