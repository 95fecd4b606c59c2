package main

import (
	"io"
	"log/slog"
)

// logLevels and logFormats are what --log-level and --log-format take.
var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{"text", "json"}
)

// newLog makes the process's logger: one line an event, on w.
func newLog(w io.Writer, level, format string) *slog.Logger {
	var l slog.Level
	// The words that the flag takes are those that slog knows.
	_ = l.UnmarshalText([]byte(level))
	opts := &slog.HandlerOptions{Level: l}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
