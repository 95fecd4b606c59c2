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

// PrintAs prints v as one line of JSON, or has text print it.
func PrintAs(format string, out io.Writer, v any, text func() error) error {
	if format == FormatJSON {
		return json.NewEncoder(out).Encode(v)
	}
	return text()
}
