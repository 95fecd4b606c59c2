package commandline

import (
	"encoding/json"
	"io"
)

// Formats of what a command prints.
const (
	FormatText = "text"
	FormatJSON = "json"
)

// Format adds the flag -o, which is the same for every command that has it: text for people, or JSON for programs,
// whose fields are added and never renamed.
func (f *Flags) Format(into *string) {
	*into = FormatText
	f.Choice(into, "o", "`FORMAT` of the output: text or json", FormatText, FormatJSON)
}

// PrintAs prints v as one line of JSON, or has text print it.
func PrintAs(format string, out io.Writer, v any, text func() error) error {
	if format == FormatJSON {
		return json.NewEncoder(out).Encode(v)
	}
	return text()
}
