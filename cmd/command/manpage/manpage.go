// Package manpage writes the man pages of commands. Tests of the programs are linked with it and the programs are not.
package manpage

import (
	"os"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

// DirVar is the environment variable with the directory that the tests of the programs write their pages to. Where it
// is not set they write to one of the test.
const DirVar = "MILLRACE_MANPAGES"

// Write writes the pages of root and of the commands below it, and gives the directory that they are in. A root other
// than millrace is a command of millrace that is a program of its own: its page is millrace-NAME.1. The date is
// $SOURCE_DATE_EPOCH where that is set.
func Write(t *testing.T, root *cobra.Command) string {
	t.Helper()
	dir := os.Getenv(DirVar)
	if dir == "" {
		dir = t.TempDir()
	}
	root.DisableAutoGenTag = true
	// Libraries put flags of their own there, which cobra would show for each command, and which no command takes.
	pflag.CommandLine = pflag.NewFlagSet("", pflag.ContinueOnError)
	if root.Name() != "millrace" {
		millrace := &cobra.Command{Use: "millrace", DisableAutoGenTag: true}
		millrace.AddCommand(root)
		t.Cleanup(func() { millrace.RemoveCommand(root) })
	}
	showValues(root)
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "millrace", Manual: "millrace"},
		dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// showValues has the pages show the word for a flag's value where they would show its default, which goes to the end of
// what the flag means.
func showValues(c *cobra.Command) {
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if f.DefValue != "" && f.NoOptDefVal == "" {
			f.Usage += " (default " + f.DefValue + ")"
		}
		if f.DefValue = f.Value.Type(); f.NoOptDefVal != "" {
			f.DefValue = "false"
		}
	})
	for _, below := range c.Commands() {
		showValues(below)
	}
}
