package cluster

import (
	"os"
	"strings"
	"testing"
)

// toldLines is how many lines of each server's log a failed test shows.
const toldLines = 15

// tell writes to the test's log what the servers complained of last.
func (c *Cluster) tell(tb testing.TB) {
	for _, s := range c.Servers() {
		text, err := os.ReadFile(s.Log)
		if err != nil {
			tb.Log(err)
			continue
		}
		var complaints []string
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, " WARN ") || strings.Contains(line, " ERROR ") {
				complaints = append(complaints, line)
			}
		}
		complaints = complaints[max(0, len(complaints)-toldLines):]
		tb.Logf("%s (running: %v) last complained of:\n%s", s.Name, s.Running(), strings.Join(complaints, ""))
	}
}

// cause is the line of a log that tells best why its process ended: the last cause of an exception, else the last line.
func cause(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	var best, last string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line != "" {
			last = line
		}
		if strings.HasPrefix(line, "Caused by: ") || strings.HasPrefix(line, "Exception in thread") {
			best = strings.TrimPrefix(line, "Caused by: ")
		}
	}
	if best == "" {
		return last
	}
	return best
}
