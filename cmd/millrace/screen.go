package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"golang.org/x/term"
)

// terminalOf is the terminal that out is; nil where it is none, or understands no more than text.
func terminalOf(out io.Writer) *os.File {
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return f
}

// screen is the whole of a terminal while `millrace top` has it. What was there before is back when it ends.
type screen struct {
	top *top

	// ctx is kept because the library's functions take none.
	ctx context.Context
	// before is the last sample, and lines are what it showed; n counts the frames.
	before topSample
	lines  []string
	n      int
	height int
	// err is what ended it.
	err error
}

// sampled is a sample that has come, or why there is none.
type sampled struct {
	sample topSample
	err    error
}

// onScreen shows frames on the terminal until ctx ends, a key ends it, or all have been shown that were asked for.
func (t *top) onScreen(ctx context.Context, terminal *os.File, before topSample) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	options := []tea.ProgramOption{tea.WithOutput(terminal), tea.WithoutSignalHandler()}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		options = append(options, tea.WithInput(nil))
	}
	s := &screen{top: t, ctx: ctx, before: before, lines: []string{"millrace, the first rates come at once; q quits"}}
	program := tea.NewProgram(s, options...)
	stop := context.AfterFunc(ctx, program.Quit)
	defer stop()
	if _, err := program.Run(); err != nil {
		return fmt.Errorf("the terminal: %w", err)
	}
	return s.err
}

// Init begins to sample.
func (s *screen) Init() tea.Cmd { return s.next(min(s.top.interval, firstInterval)) }

// next samples after so long.
func (s *screen) next(wait time.Duration) tea.Cmd {
	return tea.Tick(wait, func(time.Time) tea.Msg {
		now, err := s.top.sample(s.ctx)
		return sampled{now, err}
	})
}

// Update takes what has happened: a key, another size, or a sample.
func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "Q", "ctrl+c", "ctrl+d":
			return s, tea.Quit
		}
	case tea.WindowSizeMsg:
		s.height = msg.Height
	case sampled:
		if msg.err != nil {
			s.err = unlessEnded(s.ctx, msg.err)
			return s, tea.Quit
		}
		s.lines = frameOf(s.before, msg.sample).lines(fmt.Sprintf(", every %v; q quits", s.top.interval))
		s.before = msg.sample
		if s.n++; s.n == s.top.count {
			return s, tea.Quit
		}
		return s, s.next(s.top.interval)
	}
	return s, nil
}

// View is what the terminal shows: the lines, as far as there is room.
func (s *screen) View() tea.View {
	lines := s.lines
	if s.height > 0 {
		lines = lines[:min(len(lines), s.height)]
	}
	v := tea.NewView(strings.Join(lines, "\n"))
	v.AltScreen = true
	return v
}

// pause waits, and reports whether ctx ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return true
	case <-time.After(d):
		return false
	}
}
