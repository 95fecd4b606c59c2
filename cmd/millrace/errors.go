package main

import (
	"errors"

	"millrace.io/millrace/cmd/commandline"
)

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
	if errors.As(err, &child) {
		return child.code
	}
	return commandline.Code(err)
}
