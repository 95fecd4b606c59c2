package main

import (
	"errors"
	"io"
	"path/filepath"
	"strings"

	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/driver/sweep"
)

const sweepAbout = `Removes what the workers of a Dataset left in directories of a node: DIR/NAMESPACE/NAME of each DIR, and DIR/NAMESPACE
unless something else is in it. The controller runs it in a pod on each node that has no worker of the Dataset any more.
Links are not followed, other file systems are not entered, and what is gone already is no error.`

func sweepCommand() *command.Command {
	f := command.New("sweep", "NAMESPACE/NAME DIR...", "remove what a Dataset's workers left on a node", sweepAbout)
	f.Runs(func(args []string, _ io.Writer) error {
		if len(args) < 2 {
			return f.Wrong("sweep takes NAMESPACE/NAME and at least one DIR")
		}
		namespace, name, _ := strings.Cut(args[0], "/")
		if err := sweep.Check(namespace, name); err != nil {
			return f.Wrong("sweep %q: %v", args[0], err)
		}
		for _, dir := range args[1:] {
			if !filepath.IsAbs(dir) {
				return f.Wrong("sweep %q: accepted are absolute paths", dir)
			}
		}
		var errs []error
		for _, dir := range args[1:] {
			errs = append(errs, sweep.Remove(dir, namespace, name))
		}
		return errors.Join(errs...)
	})
	return f
}
