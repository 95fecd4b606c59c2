package command

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	// usageColumn is where what a flag means begins, and widestLine how many columns a line of that has at most.
	usageColumn = 27
	widestLine  = 110
)

// printHelp prints the help of a command: cobra's own has no headings for flags.
func printHelp(c *cobra.Command) {
	out := c.OutOrStdout()
	if c.HasSubCommands() {
		printOverview(c, out)
		return
	}
	_, _ = fmt.Fprintf(out, "Usage: %s\n\n%s\n", usageLine(c), c.Long)
	var headings []string
	below := map[string][]*pflag.Flag{}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" {
			return
		}
		heading := "Flags"
		if named := f.Annotations[headingKey]; len(named) > 0 {
			heading = named[0]
		}
		if below[heading] == nil {
			headings = append(headings, heading)
		}
		below[heading] = append(below[heading], f)
	})
	for _, h := range headings {
		_, _ = fmt.Fprintf(out, "\n%s:\n", h)
		for _, f := range below[h] {
			printFlag(f, out)
		}
	}
}

// usageLine is the command with its synopsis, as it is typed.
func usageLine(c *cobra.Command) string {
	if !c.HasParent() && !strings.HasPrefix(c.Use, "millrace") {
		return "millrace " + c.Use
	}
	return c.UseLine()
}

// printFlag prints the flag, what it takes, what it means and its default.
func printFlag(f *pflag.Flag, out io.Writer) {
	usage, head := f.Usage, Dashed(f.Name)
	if f.Shorthand != "" {
		head = Dashed(f.Shorthand) + ", " + head
	}
	if f.DefValue != "" {
		usage += " (default " + f.DefValue + ")"
	}
	line := fmt.Sprintf("  %-*s", usageColumn-3, strings.TrimSpace(head+" "+f.Value.Type()))
	for _, word := range strings.Fields(usage) {
		if len(line) > usageColumn && len(line)+1+len(word) > widestLine {
			_, _ = fmt.Fprintln(out, line)
			line = strings.Repeat(" ", usageColumn-1)
		}
		line += " " + word
	}
	_, _ = fmt.Fprintln(out, line)
}

// printOverview prints the commands below c, in their groups.
func printOverview(c *cobra.Command, out io.Writer) {
	_, _ = fmt.Fprintf(out, "%s\n\nUsage: %s\n", c.Long, usageLine(c))
	for _, g := range c.Groups() {
		_, _ = fmt.Fprintf(out, "\n%s:\n", g.Title)
		for _, sub := range c.Commands() {
			if sub.GroupID == g.ID && !sub.Hidden {
				_, _ = fmt.Fprintf(out, "  %-11s %s\n", sub.Name(), sub.Short)
			}
		}
	}
	_, _ = fmt.Fprintf(out, "\n%s COMMAND --help shows its flags. Exit codes: 0 success, 1 failure, 2 wrong usage.\n",
		c.Name())
}
