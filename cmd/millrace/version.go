package main

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"

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

// readVersion reads what the toolchain wrote into the binary.
func readVersion(info *debug.BuildInfo) buildVersion {
	v := buildVersion{Version: info.Main.Version, Go: info.GoVersion}
	if v.Version == "" {
		v.Version = "(devel)"
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	for _, d := range info.Deps {
		switch d.Path {
		case "github.com/hanwen/go-fuse/v2":
			v.GoFuse = d.Version
		case "github.com/rclone/rclone":
			v.Rclone = d.Version
		}
	}
	return v
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

func runVersion(args []string, out io.Writer) error {
	f := commandline.NewFlags("version", "[-o text|json]", "Shows what this binary was built from.", out)
	format := ""
	f.Format(&format)
	rest, err := f.Positional(args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return f.Wrong("version takes no arguments, not %q", rest[0])
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return errors.New("this binary carries no build information")
	}
	v := readVersion(info)
	return commandline.PrintAs(format, out, v, func() error {
		_, err := fmt.Fprintln(out, v)
		return err
	})
}
