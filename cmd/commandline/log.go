package commandline

import (
	"io"
	"log/slog"
	"strings"
)

// logLevels and logFormats are what --log-level and --log-format take.
var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{"text", "json"}
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

// Logging adds the flags that say what is logged, and how.
func (f *Flags) Logging(level, format *string) {
	f.Choice(level, "log-level", "`LEVEL` of what is logged: "+strings.Join(logLevels, ", "), logLevels...)
	f.Choice(format, "log-format", "`FORMAT` of the log: "+strings.Join(logFormats, ", "), logFormats...)
}
