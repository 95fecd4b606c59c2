package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// What a terminal is told (ECMA-48, and xterm's alternate screen, which leaves what was there untouched).
const (
	screenEnter = "\x1b[?1049h\x1b[?25l"
	screenLeave = "\x1b[?25h\x1b[?1049l"
	screenHome  = "\x1b[H"
	screenRest  = "\x1b[J"
	lineRest    = "\x1b[K\r\n"
)

// keyPause is the longest wait for a key before the end of the context is looked at.
const keyPause = 100 * time.Millisecond

// screen is the whole of a terminal, drawn over again and again. It has no goroutine: keys are asked for
// while waiting.
type screen struct {
	out *os.File
	// keys is where keys come from, nil where stdin is no terminal.
	keys   *os.File
	before *term.State
}

// openScreen takes the terminal that out is; nil where it is none. Whoever gets a screen must close it.
func openScreen(out io.Writer) *screen {
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	s := &screen{out: f}
	if term.IsTerminal(int(os.Stdin.Fd())) {
		// Raw, so that a key comes without Enter and is not shown; Ctrl-C comes as a key too.
		if before, err := term.MakeRaw(int(os.Stdin.Fd())); err == nil {
			s.keys, s.before = os.Stdin, before
		}
	}
	_, _ = io.WriteString(s.out, screenEnter)
	return s
}

// close gives the terminal back as it was.
func (s *screen) close() {
	_, _ = io.WriteString(s.out, screenLeave)
	if s.before != nil {
		_ = term.Restore(int(s.keys.Fd()), s.before)
	}
}

// draw shows the lines, as far as there is room.
func (s *screen) draw(lines []string) error {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = fallbackWidth, fallbackHeight
	}
	var b strings.Builder
	b.WriteString(screenHome)
	// The last column and the last line stay free: some terminals wrap or scroll when they are written to.
	for _, line := range lines[:min(len(lines), height-1)] {
		b.WriteString(clip(line, width-1) + lineRest)
	}
	b.WriteString(screenRest)
	_, err = io.WriteString(s.out, b.String())
	return err
}

// fallbackHeight is that of a terminal which does not tell.
const fallbackHeight = 24

// quits waits so long, and tells whether the user wants to end: by q, Ctrl-C, or a signal, which ends ctx.
func (s *screen) quits(ctx context.Context, wait time.Duration) bool {
	for end := time.Now().Add(wait); ctx.Err() == nil; {
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		if s.keys == nil {
			return pause(ctx, left)
		}
		fds := []unix.PollFd{{Fd: int32(s.keys.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(min(left, keyPause).Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return pause(ctx, left)
		}
		if n <= 0 {
			continue
		}
		var typed [64]byte
		got, err := s.keys.Read(typed[:])
		if err != nil {
			return true
		}
		const ctrlC, ctrlD = "\x03", "\x04"
		if bytes.ContainsAny(typed[:got], "qQ"+ctrlC+ctrlD) {
			return true
		}
	}
	return true
}

// pause waits, and tells whether ctx ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return true
	case <-time.After(d):
		return false
	}
}
