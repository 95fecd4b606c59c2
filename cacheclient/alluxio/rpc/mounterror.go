package rpc

import (
	"regexp"
	"strings"
)

// mountContext is how a master repeats the options of a mount that it refuses, the keys of the source among them.
var mountContext = regexp.MustCompile(
	`(?s)\s*(mount command: alluxio fs mount \S+ \S+ )?option MountContext\{.*\n\}\s*`,
)

// redacted is an error that does not repeat what it was told.
type redacted struct {
	text string
	err  error
}

func (e *redacted) Error() string { return e.text }
func (e *redacted) Unwrap() error { return e.err }

// withoutProperties is an error about a mount without the values of its properties, some of which are secrets.
func withoutProperties(err error, mount Mount) error {
	if err == nil {
		return nil
	}
	text := mountContext.ReplaceAllString(err.Error(), " ")
	for name, value := range mount.Properties {
		if isKey(name) && value != "" {
			text = strings.ReplaceAll(text, value, "...")
		}
	}
	if text == err.Error() {
		return err
	}
	return &redacted{text, err}
}

// isKey reports whether a property may be a key to a source.
func isKey(name string) bool {
	name = strings.ToLower(name)
	for _, part := range []string{"key", "secret", "token", "password", "credential"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}
