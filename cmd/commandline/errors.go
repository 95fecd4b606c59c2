package commandline

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"millrace.io/millrace/fuse/keeper"
)

// Exit codes beside 0.
const (
	ExitFailure = 1
	ExitUsage   = 2
)

// UsageError is a command that was typed wrongly; its help says how it is done.
type UsageError struct {
	Command string
	Err     error
}

func (e *UsageError) Error() string {
	if e.Command == "help" {
		return e.Err.Error() + "; see millrace help"
	}
	return e.Err.Error() + "; see millrace " + e.Command + " --help"
}

func (e *UsageError) Unwrap() error { return e.Err }

// Code is the exit code for err.
func Code(err error) int {
	var ended *keeper.EndedError
	var usage *UsageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ended):
		return ended.Code
	case errors.As(err, &usage):
		return ExitUsage
	default:
		return ExitFailure
	}
}

// Tell tells the user about err, on one line, unless that is known, and gives the code to
// exit with.
func Tell(err error, stderr io.Writer) int {
	code := Code(err)
	var ended *keeper.EndedError
	if code != 0 && (!errors.As(err, &ended) || !ended.Told) {
		_, _ = fmt.Fprintf(stderr, "millrace: %s\n", OneLine(err.Error()))
	}
	return code
}

// OneLine makes text safe to print as a single line: line breaks become "; ", other control
// characters, which could come from a server or a file's name, become "?".
func OneLine(text string) string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, strings.Join(lines, "; "))
}
