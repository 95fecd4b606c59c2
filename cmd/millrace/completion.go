package main

import (
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/fuse/agent"
)

const completionAbout = `Prints the script by which a shell completes millrace's commands, flags and mounts: bash (with bash-completion 2), zsh
or fish.

  source <(millrace completion bash)
  millrace completion zsh > "${fpath[1]}/_millrace"
  millrace completion fish > ~/.config/fish/completions/millrace.fish`

// shells are those that there are scripts for.
var shells = []string{"bash", "zsh", "fish"}

func completionCommand(root *command.Command) *command.Command {
	f := command.New("completion", strings.Join(shells, "|"), "print the script by which a shell completes millrace",
		completionAbout)
	f.ValidArgs = shells
	f.Runs(func(rest []string, out io.Writer) error {
		if len(rest) != 1 || !slices.Contains(shells, rest[0]) {
			return f.Wrong("completion takes the name of a shell, not %q; accepted are %s", strings.Join(rest, " "),
				strings.Join(shells, ", "))
		}
		switch rest[0] {
		case "zsh":
			return root.GenZshCompletion(out)
		case "fish":
			return root.GenFishCompletion(out, true)
		default:
			return root.GenBashCompletionV2(out, true)
		}
	})
	return f
}

// completeMounts completes the directory of a mount of this user.
func completeMounts(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	runtime, err := agent.RuntimeDir()
	if err != nil {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	entries, err := agent.OpenRegistry(runtime).List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	var dirs []string
	for _, e := range entries {
		dirs = append(dirs, cobra.CompletionWithDesc(e.Dir, e.Source))
	}
	return dirs, cobra.ShellCompDirectiveNoFileComp
}
