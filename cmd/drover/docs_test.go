package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestCommandReference holds docs/CLI.md against the commands.
func TestCommandReference(t *testing.T) {
	var doc strings.Builder
	doc.WriteString("# Commands\n\nMade from the commands' own help; `go test ./cmd/drover -run CommandReference -update` writes it anew.\n")
	describe(&doc, newRootCommand(&cli{}))
	const path = "../../docs/CLI.md"
	if *update {
		if err := os.WriteFile(path, []byte(doc.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil || string(have) != doc.String() {
		t.Fatalf("docs/CLI.md is not what the commands say (%v): run this test with -update", err)
	}
}

// describe writes a command and those below it.
func describe(doc *strings.Builder, cmd *cobra.Command) {
	if cmd.Hidden {
		return
	}
	fmt.Fprintf(doc, "\n## %s\n\n%s\n", cmd.UseLine(), cmd.Short)
	if cmd.Long != "" {
		fmt.Fprintf(doc, "\n```text\n%s\n```\n", strings.TrimSpace(cmd.Long))
	}
	if cmd.Example != "" {
		fmt.Fprintf(doc, "\n```sh\n%s\n```\n", strings.TrimRight(cmd.Example, "\n"))
	}
	var flags strings.Builder
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			fmt.Fprintf(&flags, "| `--%s` | %s |\n", f.Name, f.Usage)
		}
	})
	if flags.Len() > 0 {
		fmt.Fprintf(doc, "\n| flag | meaning |\n| --- | --- |\n%s", flags.String())
	}
	for _, sub := range cmd.Commands() {
		describe(doc, sub)
	}
}
