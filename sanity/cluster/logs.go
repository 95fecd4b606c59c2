package cluster

import (
	"cmp"
	"os"
	"regexp"
	"strings"
	"testing"
)

// A failed test shows so many lines of each server's log, of so many characters.
const (
	toldLines  = 8
	toldLength = 240
)

// idle are what servers complain of in every cluster.
var idle = []string{
	"InstancedConfiguration", "JvmPauseMonitor", "SecurityHandler", "DefaultStorageTier", "Scheduler",
	"BackupWorkerRole",
}

// tell writes to the test's log what the servers complained of last.
func (c *Cluster) tell(tb testing.TB) {
	tb.Helper()
	for _, s := range c.Servers() {
		text, err := os.ReadFile(s.Log)
		if err != nil {
			tb.Log(err)
			continue
		}
		var complaints []string
		for line := range strings.Lines(string(text)) {
			if isComplaint(line) {
				complaints = append(complaints, strings.TrimSpace(line[:min(len(line), toldLength)]))
			}
		}
		complaints = complaints[max(0, len(complaints)-toldLines):]
		tb.Logf("%s (running: %v) last complained of:\n%s", s.Name, s.Running(), strings.Join(complaints, "\n"))
	}
}

// isComplaint reports whether a line of a log is a warning or worse that means something.
func isComplaint(line string) bool {
	for _, word := range idle {
		if strings.Contains(line, " "+word+" - ") {
			return false
		}
	}
	return strings.Contains(line, " WARN ") || strings.Contains(line, " ERROR ") || strings.Contains(line, " FATAL ")
}

// thrown is how a log shows an exception.
var thrown = regexp.MustCompile(`^(Caused by: |Exception in thread |[a-z]+(\.\w+)+(Exception|Error)\b)`)

// cause is the line of a log that tells best why its process ended: what an exception was caused by at last, else the
// last complaint, else the last line.
func cause(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	var exception, complaint, last string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case thrown.MatchString(line):
			exception = strings.TrimPrefix(line, "Caused by: ")
		case isComplaint(line):
			complaint = line
		}
		if line != "" {
			last = line
		}
	}
	return cmp.Or(exception, complaint, last, "it logged nothing")
}
