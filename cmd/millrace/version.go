package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/commandline"
)

// buildVersion is `millrace version -o json`: what the binary was built from. Fields are
// added, never renamed.
type buildVersion struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Time     string `json:"time"`
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	GoFuse   string `json:"goFuse"`
	Rclone   string `json:"rclone"`
}

// versionOf is what is shown of a build.
func versionOf(b commandline.Build) buildVersion {
	return buildVersion{
		Version: b.Version, Revision: b.Revision, Time: b.Time, Modified: b.Modified, Go: b.Go,
		GoFuse: b.Modules["github.com/hanwen/go-fuse/v2"], Rclone: b.Modules["github.com/rclone/rclone"],
	}
}

func (v buildVersion) String() string {
	revision := "revision unknown"
	if v.Revision != "" {
		revision = "revision " + v.Revision
	}
	if v.Modified {
		revision += ", modified"
	}
	return fmt.Sprintf("millrace %s (%s) %s, go-fuse %s, rclone %s", v.Version, revision, v.Go, v.GoFuse, v.Rclone)
}

func versionCommand() *command.Command {
	f := command.New("version", "[-o text|json]", "show what this binary was built from",
		"Shows the version, the commit and the version of Go that this binary was built from.")
	format := ""
	f.Format(&format)
	f.ValidArgsFunction = cobra.NoFileCompletions
	f.Runs(func(rest []string, out io.Writer) error {
		if len(rest) > 0 {
			return f.Wrong("version takes no arguments, not %q", rest[0])
		}
		v := versionOf(commandline.ReadBuild())
		return commandline.PrintAs(format, out, v, func() error {
			_, err := fmt.Fprintln(out, v)
			return err
		})
	})
	return f
}
