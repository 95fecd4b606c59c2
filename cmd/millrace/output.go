package main

import (
	"encoding/json"
	"io"
	"unicode/utf8"
)

// Formats of what a command prints.
const (
	formatText = "text"
	formatJSON = "json"
)

// format adds the flag -o, which is the same for every command that has it: text for people, or JSON for programs,
// whose fields are added and never renamed.
func (f *flags) format(into *string) {
	*into = formatText
	f.choice(into, "o", "`FORMAT` of the output: text or json", formatText, formatJSON)
}

// printAs prints v as one line of JSON, or has text print it.
func printAs(format string, out io.Writer, v any, text func() error) error {
	if format == formatJSON {
		return json.NewEncoder(out).Encode(v)
	}
	return text()
}

// clip is the line as far as it fits into so many columns.
func clip(line string, columns int) string {
	if utf8.RuneCountInString(line) <= columns {
		return line
	}
	return string([]rune(line)[:max(columns, 0)])
}
