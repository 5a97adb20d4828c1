// Package client speaks Drover's HTTP API from Go: one typed method per request, and helpers that follow what takes long (WaitMachine,
// FollowLogs, FollowMigration).
//
//	c, err := client.New(client.Config{BaseURL: "http://127.0.0.1:4280", Token: token})
//	m, err := c.CreateMachine(ctx, "ledger", apiv1.CreateMachineRequest{Config: config})
//	m, err = c.WaitMachine(ctx, "ledger", m.ID, drover.StateStarted, m.InstanceID)
//
// Start runs a command in a machine with its input and output, or a terminal. The command line uses this package for everything.
//
// Every error is a *drover.Error with the code, hint and field that the server gave. A server that does not answer is Unavailable, a
// context that ended is Canceled. A request is sent once and never repeated: only the following helpers ask again, and they only read.
package client
