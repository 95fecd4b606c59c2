package commandline

import (
	"io"
	"log/slog"
)

// NewLog makes the process's logger: one line an event, on w.
func NewLog(w io.Writer, level, format string) *slog.Logger {
	var l slog.Level
	// The words that the flag takes are those that slog knows.
	_ = l.UnmarshalText([]byte(level))
	opts := &slog.HandlerOptions{Level: l}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
