package command

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"millrace.io/millrace/cmd/commandline"
)

// buildVersion is `millrace version -o json`: what a program was built from. Fields are
// added, never renamed; one of which nothing is known is absent.
type buildVersion struct {
	Program  string `json:"program"`
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	GoFuse   string `json:"goFuse,omitempty"`
	Rclone   string `json:"rclone,omitempty"`
}

// versionOf is what is shown of a program's build.
func versionOf(program string, b commandline.Build) buildVersion {
	return buildVersion{
		Program: program, Version: b.Version, Revision: b.Revision, Time: b.Time, Modified: b.Modified, Go: b.Go,
		GoFuse: b.Modules["github.com/hanwen/go-fuse/v2"], Rclone: b.Modules["github.com/rclone/rclone"],
	}
}

func (v buildVersion) String() string {
	b := commandline.Build{Version: v.Version, Revision: v.Revision, Time: v.Time, Modified: v.Modified, Go: v.Go}
	parts := []string{b.Line(v.Program)}
	for _, library := range []struct{ name, version string }{{"go-fuse", v.GoFuse}, {"rclone", v.Rclone}} {
		if library.version != "" {
			parts = append(parts, library.name+" "+library.version)
		}
	}
	return strings.Join(parts, ", ")
}

// Version makes the command that shows what a program was built from.
func Version(program string) *Command {
	f := New(versionName, "[-o text|json]", "show what this program was built from",
		"Shows the version, the commit and the version of Go that this program was built from.")
	format := ""
	f.Format(&format)
	f.ValidArgsFunction = cobra.NoFileCompletions
	f.Runs(func(rest []string, out io.Writer) error {
		if len(rest) > 0 {
			return f.Wrong("version takes no arguments, not %q", rest[0])
		}
		v := versionOf(program, commandline.ReadBuild())
		return commandline.PrintAs(format, out, v, func() error {
			_, err := fmt.Fprintln(out, v)
			return err
		})
	})
	return f
}

const versionName = "version"

// Program makes of a command a program of its own, millrace-NAME, which tells its version: by the word version and by
// the flag --version. What the command runs is set before.
func (c *Command) Program() *Command {
	run, show := c.RunE, false
	c.Heading("This program")
	c.Toggle(&show, versionName,
		"show what this program was built from, and end; the word version does it too, also with -o json")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if show {
			return Execute(Version(programName(c.Command)).Command, nil, cmd.OutOrStdout())
		}
		return run(cmd, args)
	}
	return c
}

// programName is what a program that is one command of millrace is called.
func programName(c *cobra.Command) string { return "millrace-" + c.Name() }

// asksVersion reports whether a program that is one command is asked for its version before all else.
func asksVersion(root *cobra.Command, args []string) bool {
	return len(args) > 0 && strings.TrimLeft(args[0], "-") == versionName && root.Flags().Lookup(versionName) != nil
}
