package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse/agent"
)

const (
	// plainEvery is the time between two lines where the output is no terminal.
	plainEvery = time.Second
	// longestBar is the bar's width in columns where there is room.
	longestBar = 40
)

// progress shows a warming: a bar that is drawn again and again on a terminal, plain lines
// elsewhere, or JSON. No name of a file is shown, so that none can play with the terminal.
type progress struct {
	out   io.Writer
	json  bool
	begun time.Time
	last  time.Time
	// bars draw on the terminal, nil where out is none; bar is the one there is, nil before the first update.
	bars *mpb.Progress
	bar  *mpb.Bar
	// shown is what the bar shows.
	shown atomic.Pointer[agent.WarmProgress]
}

func newProgress(out io.Writer, format string) *progress {
	now := time.Now()
	p := &progress{out: out, json: format == commandline.FormatJSON, begun: now, last: now}
	if f, ok := out.(*os.File); ok && !p.json && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		p.bars = mpb.New(mpb.WithOutput(f), mpb.WithWidth(longestBar))
	}
	return p
}

// update shows w.
func (p *progress) update(w agent.WarmProgress) {
	switch {
	case p.json:
		// A reader that is gone ends the program by SIGPIPE.
		_ = json.NewEncoder(p.out).Encode(w)
	case w.Done:
	case p.bars != nil:
		p.shown.Store(&w)
		if p.bar == nil {
			p.bar = p.addBar()
		}
		p.bar.SetTotal(w.BytesTotal, false)
		p.bar.SetCurrent(w.BytesDone)
	case time.Since(p.last) >= plainEvery:
		p.last = time.Now()
		_, _ = fmt.Fprintln(p.out, progressLine(w))
	}
}

// addBar adds the bar, whose end is not its total: files may still be listed.
func (p *progress) addBar() *mpb.Bar {
	words := func(text func(agent.WarmProgress) string) decor.Decorator {
		return decor.Any(func(decor.Statistics) string { return text(*p.shown.Load()) })
	}
	return p.bars.New(0, mpb.BarStyle().Lbound("[").Filler("=").Tip("=").Padding(" ").Rbound("]"),
		mpb.PrependDecorators(words(percent)), mpb.AppendDecorators(words(progressWords)))
}

// clear takes the bar off the terminal. It must be called before anything else is written.
func (p *progress) clear() {
	if p.bars == nil {
		return
	}
	if p.bar != nil {
		p.bar.Abort(true)
	}
	p.bars.Wait()
}

// summary is the last line.
func (p *progress) summary(w agent.WarmProgress) {
	if p.json {
		return
	}
	how := "all of it before"
	if w.BytesSource > 0 {
		how = fmt.Sprintf("%s from the source in %s (%s/s)", commandline.FormatSize(w.BytesSource),
			shortTime(time.Since(p.begun)), commandline.FormatSize(int64(w.Rate)))
	}
	_, _ = fmt.Fprintf(p.out, "%s cached, %s: %s\n", files(w.FilesDone), commandline.FormatSize(w.BytesDone), how)
	if w.Warning != "" {
		_, _ = fmt.Fprintln(p.out, "Note: "+commandline.OneLine(w.Warning))
	}
}

// progressLine is one plain line: "110 MiB of 250 MiB, 78 MiB/s, 3 of 12 files, 2s left".
func progressLine(w agent.WarmProgress) string {
	line := fmt.Sprintf("%s of %s, %s/s, %d of %s", commandline.FormatSize(w.BytesDone),
		total(w, commandline.FormatSize(w.BytesTotal)),
		commandline.FormatSize(int64(w.Rate)), w.FilesDone, filesTotal(w))
	if left, ok := timeLeft(w); ok {
		line += ", " + shortTime(left) + " left"
	}
	return line
}

// percent is the part that is cached.
func percent(w agent.WarmProgress) string {
	part := 0.0
	if w.BytesTotal > 0 {
		part = min(float64(w.BytesDone)/float64(w.BytesTotal), 1)
	}
	return fmt.Sprintf("%3d%%", int(part*100))
}

// progressWords are what stands beside the bar, the most important first: what does not fit is cut off.
func progressWords(w agent.WarmProgress) string {
	parts := []string{
		fmt.Sprintf("%s / %s", commandline.FormatSize(w.BytesDone), total(w, commandline.FormatSize(w.BytesTotal))),
		commandline.FormatSize(int64(w.Rate)) + "/s",
	}
	if left, ok := timeLeft(w); ok {
		parts = append(parts, shortTime(left)+" left")
	}
	return strings.Join(append(parts, fmt.Sprintf("%d/%s", w.FilesDone, filesTotal(w))), "  ")
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
