package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// event is one of `go test -json`, as test2json documents it.
type event struct {
	Time    time.Time
	Action  string
	Package string
	Test    string
	Output  string
}

// test names a test, or its package where Name is "".
type test struct{ Package, Name string }

// eventLog follows the file of events that gotestsum writes.
type eventLog struct {
	path string

	offset  int64
	rest    []byte             // an event that is not whole yet
	running map[test]time.Time // when each running test began, or went on
	started int                // packages that began
	ended   int                // packages that ended
	said    map[test]string    // the last line that each running test printed
	skipped map[string]int     // tests by the reason for which they were skipped
}

// read takes in the events that have come since.
func (l *eventLog) read() {
	if l.running == nil {
		l.running, l.said, l.skipped = map[test]time.Time{}, map[test]string{}, map[string]int{}
	}
	f, err := os.Open(l.path)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.NewSectionReader(f, l.offset, 1<<40))
	if err != nil {
		return
	}
	l.offset += int64(len(data))
	lines := bytes.Split(append(l.rest, data...), []byte("\n"))
	l.rest = bytes.Clone(lines[len(lines)-1])
	for _, line := range lines[:len(lines)-1] {
		var e event
		if json.Unmarshal(line, &e) == nil {
			l.take(e)
		}
	}
}

// take counts one event.
func (l *eventLog) take(e event) {
	t := test{e.Package, e.Test}
	switch e.Action {
	case "start":
		l.started++
	case "run", "cont":
		l.running[t] = e.Time
	case "pause":
		// It waits for its turn.
		delete(l.running, t)
	case "output":
		if text := strings.TrimSpace(e.Output); text != "" && !strings.HasPrefix(text, "--- ") &&
			!strings.HasPrefix(text, "=== ") {
			l.said[t] = text
		}
	case "pass", "fail", "skip":
		if e.Test == "" {
			l.ended++
		} else if e.Action == "skip" {
			l.skipped[reason(l.said[t])]++
		}
		delete(l.running, t)
		delete(l.said, t)
	}
}

// position is where in the code a test printed its line.
var position = regexp.MustCompile(`^[\w.-]+\.go:\d+: `)

// reason is what a skipped test said.
func reason(line string) string {
	return cmp.Or(position.ReplaceAllString(line, ""), "no reason was given")
}

// goingOn says what happens now: the oldest of the innermost tests, or that packages are built.
func (l *eventLog) goingOn(now time.Time) string {
	var oldest test
	for t, began := range l.running {
		if l.hasPart(t) {
			continue
		}
		if oldest.Name == "" || began.Before(l.running[oldest]) {
			oldest = t
		}
	}
	counts := fmt.Sprintf("%d packages done", l.ended)
	if oldest.Name == "" {
		return "building the tests; " + counts
	}
	_, folder, _ := strings.Cut(oldest.Package, "/millrace/")
	return fmt.Sprintf("%s %s for %v; %s", cmp.Or(folder, oldest.Package), oldest.Name,
		now.Sub(l.running[oldest]).Round(time.Second), counts)
}

// hasPart reports whether a part of the test runs, which says more than the test does.
func (l *eventLog) hasPart(t test) bool {
	for other := range l.running {
		if other.Package == t.Package && strings.HasPrefix(other.Name, t.Name+"/") {
			return true
		}
	}
	return false
}

// skippedText lists the reasons of skipped tests, the most frequent first.
func (l *eventLog) skippedText() string {
	if len(l.skipped) == 0 {
		return ""
	}
	reasons := slices.SortedFunc(maps.Keys(l.skipped), func(a, b string) int {
		return cmp.Or(l.skipped[b]-l.skipped[a], strings.Compare(a, b))
	})
	var text strings.Builder
	text.WriteString("skipped, by reason:\n")
	for _, r := range reasons {
		fmt.Fprintf(&text, "  %4d  %s\n", l.skipped[r], r)
	}
	return text.String()
}
