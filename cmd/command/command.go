package command

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"millrace.io/millrace/cmd/commandline"
)

// Command is a command with the flags of this package.
type Command struct {
	*cobra.Command
	// heading is that of the flags which are added next, in the help.
	heading string
}

// unsorted has commands listed in their order. It is cobra's setting for the whole process.
var unsorted = sync.OnceFunc(func() { cobra.EnableCommandSorting = false })

// New makes the command name. The synopsis shows its arguments, summary is its line in a list of commands, about is a
// paragraph for its help.
func New(name, synopsis, summary, about string) *Command {
	unsorted()
	c := &Command{Command: &cobra.Command{
		Use: strings.TrimSpace(name + " " + synopsis), Short: summary, Long: about,
		Args: cobra.ArbitraryArgs, SilenceErrors: true, SilenceUsage: true, DisableFlagsInUseLine: true,
	}}
	c.Flags().SortFlags = false
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return c.explain(err) })
	c.SetHelpFunc(func(shown *cobra.Command, _ []string) { printHelp(shown) })
	return c
}

// Runs says what the command does with its positional arguments; what was asked for goes to out.
func (c *Command) Runs(run func(args []string, out io.Writer) error) {
	c.RunE = func(shown *cobra.Command, args []string) error { return run(args, shown.OutOrStdout()) }
}

// Wrong is an error of usage of this command.
func (c *Command) Wrong(format string, args ...any) error {
	return &commandline.UsageError{Command: c.Name(), Err: fmt.Errorf(format, args...)}
}

// Heading is what the help shows above the flags that are added next.
func (c *Command) Heading(heading string) { c.heading = heading }

// Execute runs root, or the command below it that args name. Flags may follow arguments, and long ones may have a
// single dash. What the command was asked for goes to out.
func Execute(root *cobra.Command, args []string, out io.Writer) error {
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetOut(out)
	named := root
	switch {
	case len(args) > 0 && (args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd):
		root.SetArgs(args)
		return root.Execute()
	case root.HasSubCommands():
		var err error
		if named, err = namedBy(root, args); err != nil {
			return err
		}
		args = args[1:]
	case asksVersion(root, args):
		return Execute(Version(programName(root)).Command, args[1:], out)
	}
	if !named.DisableFlagParsing {
		named.InitDefaultHelpFlag()
		args = dashes(named.Flags(), args)
	}
	if named != root {
		args = append([]string{named.Name()}, args...)
	}
	root.SetArgs(append([]string{}, args...))
	return root.Execute()
}

// namedBy is the command below root that the first of args names, with dashes before it or without: --version is
// version.
func namedBy(root *cobra.Command, args []string) (*cobra.Command, error) {
	if len(args) == 0 {
		return nil, &commandline.UsageError{Command: "help", Err: errors.New("a command is missing")}
	}
	name := strings.TrimLeft(args[0], "-")
	if name == "h" {
		name = "help"
	}
	commands := root.Commands()
	if i := slices.IndexFunc(commands, func(c *cobra.Command) bool { return c.Name() == name }); i >= 0 {
		return commands[i], nil
	}
	err := fmt.Errorf("there is no command %q%s", args[0], hint(name, commandNames(root)))
	return nil, &commandline.UsageError{Command: "help", Err: err}
}
