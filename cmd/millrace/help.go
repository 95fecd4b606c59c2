package main

import (
	"io"
	"strings"

	"github.com/spf13/cobra"

	"millrace.io/millrace/cmd/command"
)

const overview = `millrace makes remote data look like a fast local disk.

  millrace mount https://example.org/data/ /mnt/data`

// helpCommand shows the list of the commands below root, or the help of one.
func helpCommand(root *command.Command) *command.Command {
	f := command.New("help", "[COMMAND]", "show this, or the help of a command",
		"Shows all commands, or the help of COMMAND.")
	f.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for _, c := range root.Commands() {
			if len(args) == 0 && !c.Hidden {
				names = append(names, cobra.CompletionWithDesc(c.Name(), c.Short))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	f.Runs(func(args []string, out io.Writer) error {
		if len(args) > 0 && args[0] != "help" && !strings.HasPrefix(args[0], "-") {
			return command.Execute(root.Command, []string{args[0], "--help"}, out)
		}
		return root.Help()
	})
	f.SetHelpFunc(func(*cobra.Command, []string) { _ = root.Help() })
	return f
}
