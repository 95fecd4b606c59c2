package driver

import (
	"errors"
	"io"
	"net"
	"strings"
)

// lostAgent reports whether the error is a connection that could not be made, or ended without an answer.
func lostAgent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// oneLine is the text of an error on one line, and valid UTF-8 as a status must be.
func oneLine(err error) string {
	return strings.ToValidUTF8(strings.ReplaceAll(err.Error(), "\n", "; "), "?")
}
