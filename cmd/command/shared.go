package command

import (
	"strings"

	"millrace.io/millrace/cmd/commandline"
)

// logLevels and logFormats are what --log-level and --log-format take.
var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{"text", "json"}
)

// Logging adds the flags that say what is logged, and how.
func (c *Command) Logging(level, format *string) {
	c.Choice(level, "log-level", "`LEVEL` of what is logged: "+strings.Join(logLevels, ", "), logLevels...)
	c.Choice(format, "log-format", "`FORMAT` of the log: "+strings.Join(logFormats, ", "), logFormats...)
}

// Format adds the flag -o, which is the same for every command that has it: text for people, or JSON for programs,
// whose fields are added and never renamed.
func (c *Command) Format(into *string) {
	*into = commandline.FormatText
	c.Choice(into, "output,o", "`FORMAT` of the output: text or json", commandline.FormatText, commandline.FormatJSON)
}
