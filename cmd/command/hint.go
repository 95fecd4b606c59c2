package command

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// hint tells which of names is near one that there is not, as the end of an error; "" where none is.
func hint(typed string, names []string) string {
	const shortest, longest = 3, 32
	if len(typed) < shortest || len(typed) > longest {
		return ""
	}
	// cobra compares commands, so the names become some. Two letters of three may differ from anything.
	all := &cobra.Command{SuggestionsMinimumDistance: min(2, len(typed)-2)}
	for _, name := range names {
		all.AddCommand(&cobra.Command{Use: name, Run: func(*cobra.Command, []string) {}})
	}
	if near := all.SuggestionsFor(typed); len(near) > 0 {
		return ", perhaps " + strings.Join(near, " or ") + " is meant"
	}
	return ""
}

// commandNames are the commands below c.
func commandNames(c *cobra.Command) []string {
	var names []string
	for _, below := range c.Commands() {
		names = append(names, below.Name())
	}
	return names
}

// flagNames are the flags of c as people write them.
func flagNames(c *cobra.Command) []string {
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, Dashed(f.Name)) })
	return names
}
