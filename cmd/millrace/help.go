package main

import (
	"fmt"
	"io"
	"strings"
)

const overview = `millrace makes remote data look like a fast local disk.

  millrace mount https://example.org/data/ /mnt/data

`

// runHelp prints the list of commands, or the help of one.
func runHelp(args []string, out io.Writer) error {
	if len(args) > 0 && args[0] != "help" && !strings.HasPrefix(args[0], "-") {
		return dispatch([]string{args[0], "--help"}, out)
	}
	_, err := fmt.Fprint(out, overview+"Usage: millrace COMMAND [flags] [arguments]\n\nCommands:\n")
	for _, c := range commands() {
		_, err = fmt.Fprintf(out, "  %-10s %s\n", c.name, c.summary)
	}
	_, _ = fmt.Fprint(out, "\nmillrace COMMAND --help shows its flags. Exit codes: 0 success, 1 failure, 2 wrong usage.\n")
	return err
}
