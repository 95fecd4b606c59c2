// Command millrace mounts remote data as a fast local directory. Each subcommand is a
// file: its flags, its wiring and its exit code; the work is done in the packages.
//
// Exit codes: 0 success, 1 failure, 2 wrong usage. A failure is one line on stderr that begins
// with "millrace: ". What a command was asked for goes to stdout.
package main

import (
	"log/slog"
	"os"

	rclone "github.com/rclone/rclone/fs"
	"github.com/spf13/cobra"

	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/commandline"
)

// newMillrace makes the program's commands, in the groups in which the help shows them.
func newMillrace() *command.Command {
	root := command.New("millrace", "COMMAND [flags] [arguments]", "remote data as a fast local directory", overview)
	for _, g := range []struct {
		name     string
		commands []*command.Command
	}{
		{"Mounts", []*command.Command{mountCommand(), unmountCommand(), warmCommand(), freeCommand()}},
		{"Looking", []*command.Command{statusCommand(), topCommand(), blocksCommand(), traceCommand(), doctorCommand()}},
		{"Kubernetes", []*command.Command{
			nodeCommand(), agentCommand(), sweepCommand(),
			beside("controller", "make Datasets of Kubernetes into caches, volumes and claims"),
			beside("gateway", "show a source to Alluxio as an S3 bucket"),
		}},
		{"Other", []*command.Command{completionCommand(root), command.Version("millrace"), helpCommand(root)}},
	} {
		root.AddGroup(&cobra.Group{ID: g.name, Title: g.name})
		for _, c := range g.commands {
			c.GroupID = g.name
			root.AddCommand(c.Command)
			if c.Name() == "help" {
				root.SetHelpCommand(c.Command)
			}
		}
	}
	return root
}

func main() {
	// Its messages are for rclone's own users; what they are about reaches us as errors.
	rclone.SetLogger(slog.DiscardHandler)
	os.Exit(commandline.Tell(command.Execute(newMillrace().Command, os.Args[1:], os.Stdout), os.Stderr))
}
