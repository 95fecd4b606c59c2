package main

import (
	"errors"
	"strings"
	"unicode"
)

// usageError is an error of whoever typed the command; the command's help says how it is
// done.
type usageError struct {
	command string
	err     error
}

func (e *usageError) Error() string {
	if e.command == "help" {
		return e.err.Error() + "; see millrace help"
	}
	return e.err.Error() + "; see millrace " + e.command + " --help"
}

func (e *usageError) Unwrap() error { return e.err }

// childError is what a background process said before it ended.
type childError struct {
	code     int
	sentence string
	// told is set in the background process itself, whose log has the sentence already.
	told bool
}

func (e *childError) Error() string { return e.sentence }

// codeOf is the exit code for err.
func codeOf(err error) int {
	var child *childError
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &child):
		return child.code
	case errors.As(err, &usage):
		return exitUsage
	default:
		return exitFailure
	}
}

// oneLine makes text safe to print as a single line: line breaks become "; ", other control
// characters, which could come from a server or a file's name, become "?".
func oneLine(text string) string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, strings.Join(lines, "; "))
}
