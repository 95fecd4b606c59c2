package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse/agent"
)

const (
	// plainEvery is the time between two lines where the output is no terminal.
	plainEvery = time.Second
	// fallbackWidth is that of a terminal which does not tell.
	fallbackWidth = 80
	// longestBar is the bar's width in columns where there is room.
	longestBar = 40
	// clearLine goes to the first column and clears to the end of the line (ECMA-48 EL).
	clearLine = "\r\x1b[K"
)

// progress shows a warming: a bar that is drawn again and again on a terminal, plain lines
// elsewhere, or JSON. No name of a file is shown, so that none can play with the terminal.
type progress struct {
	out      io.Writer
	json     bool
	terminal *os.File // nil where out is none
	begun    time.Time
	last     time.Time
	drawn    bool
}

func newProgress(out io.Writer, format string) *progress {
	now := time.Now()
	p := &progress{out: out, json: format == commandline.FormatJSON, begun: now, last: now}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		p.terminal = f
	}
	return p
}

// update shows w.
func (p *progress) update(w agent.WarmProgress) {
	switch {
	case p.json:
		// Whoever no longer reads it ends us by SIGPIPE.
		_ = json.NewEncoder(p.out).Encode(w)
	case w.Done:
	case p.terminal != nil:
		width, _, err := term.GetSize(int(p.terminal.Fd()))
		if err != nil || width <= 0 {
			width = fallbackWidth
		}
		_, _ = fmt.Fprint(p.out, clearLine+progressBar(w, width))
		p.drawn = true
	case time.Since(p.last) >= plainEvery:
		p.last = time.Now()
		_, _ = fmt.Fprintln(p.out, progressLine(w))
	}
}

// clear takes the bar off the terminal.
func (p *progress) clear() {
	if p.drawn {
		_, _ = fmt.Fprint(p.out, clearLine)
		p.drawn = false
	}
}

// summary is the last line.
func (p *progress) summary(w agent.WarmProgress) {
	if p.json {
		return
	}
	how := "all of it before"
	if w.BytesSource > 0 {
		how = fmt.Sprintf("%s from the source in %s (%s/s)", commandline.FormatSize(w.BytesSource), shortTime(time.Since(p.begun)), commandline.FormatSize(int64(w.Rate)))
	}
	_, _ = fmt.Fprintf(p.out, "%s cached, %s: %s\n", files(w.FilesDone), commandline.FormatSize(w.BytesDone), how)
	if w.Warning != "" {
		_, _ = fmt.Fprintln(p.out, "Note: "+commandline.OneLine(w.Warning))
	}
}

// progressLine is one plain line: "110 MiB of 250 MiB, 78 MiB/s, 3 of 12 files, 2s left".
func progressLine(w agent.WarmProgress) string {
	line := fmt.Sprintf("%s of %s, %s/s, %d of %s", commandline.FormatSize(w.BytesDone), total(w, commandline.FormatSize(w.BytesTotal)),
		commandline.FormatSize(int64(w.Rate)), w.FilesDone, filesTotal(w))
	if left, ok := timeLeft(w); ok {
		line += ", " + shortTime(left) + " left"
	}
	return line
}

// progressBar is the line for a terminal of width columns. What does not fit is left
// out, the least important first.
func progressBar(w agent.WarmProgress, width int) string {
	part := 0.0
	if w.BytesTotal > 0 {
		part = min(float64(w.BytesDone)/float64(w.BytesTotal), 1)
	}
	percent := fmt.Sprintf("%3d%%", int(part*100))
	parts := []string{
		fmt.Sprintf("%s / %s", commandline.FormatSize(w.BytesDone), total(w, commandline.FormatSize(w.BytesTotal))),
		commandline.FormatSize(int64(w.Rate)) + "/s",
	}
	if left, ok := timeLeft(w); ok {
		parts = append(parts, shortTime(left)+" left")
	}
	parts = append(parts, fmt.Sprintf("%d/%s", w.FilesDone, filesTotal(w)))
	// The last column stays free: some terminals wrap when it is written to.
	room := width - 1
	text := percent
	for _, p := range parts {
		if longer := text + "  " + p; utf8.RuneCountInString(longer) <= room {
			text = longer
		}
	}
	// " [] " and a bar of five columns is the shortest worth drawing.
	if bar := min(room-utf8.RuneCountInString(text)-3, longestBar); bar >= 5 {
		full := int(part * float64(bar))
		text = percent + " [" + strings.Repeat("=", full) + strings.Repeat(" ", bar-full) + "]" + text[len(percent):]
	}
	return text[:min(len(text), max(room, 0))]
}

// timeLeft estimates from the rate; there is none while files are still being listed.
func timeLeft(w agent.WarmProgress) (time.Duration, bool) {
	if w.Listing || w.Rate < 1 || w.BytesDone >= w.BytesTotal {
		return 0, false
	}
	seconds := float64(w.BytesTotal-w.BytesDone) / w.Rate
	if seconds > (1000 * time.Hour).Seconds() {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

// total marks a number that may still grow.
func total(w agent.WarmProgress, text string) string {
	if w.Listing {
		return text + "+"
	}
	return text
}

func filesTotal(w agent.WarmProgress) string {
	if w.Listing {
		return fmt.Sprintf("%d+ files", w.FilesTotal)
	}
	return files(w.FilesTotal)
}

func files(n int64) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}

// shortTime is d for people: tenths below ten seconds, whole seconds above.
func shortTime(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
