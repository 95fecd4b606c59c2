package main

import "unicode/utf8"

// clip is the line as far as it fits into so many columns.
func clip(line string, columns int) string {
	if utf8.RuneCountInString(line) <= columns {
		return line
	}
	return string([]rune(line)[:max(columns, 0)])
}
