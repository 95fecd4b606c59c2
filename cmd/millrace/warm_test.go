package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// slowServer serves the rig's source at about rate bytes a second for each request.
func (r *rig) slowServer(rate int) string {
	r.t.Helper()
	files := http.FileServer(http.Dir(r.source))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		files.ServeHTTP(&slowWriter{w, rate}, req)
	}))
	r.t.Cleanup(s.Close)
	return s.URL + "/"
}

type slowWriter struct {
	http.ResponseWriter
	rate int
}

func (w *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(time.Duration(len(p)) * time.Second / time.Duration(w.rate))
	return w.ResponseWriter.Write(p)
}

func TestWarmPrintsPlainLines(t *testing.T) {
	r := newRig(t)
	for i := range 4 {
		r.write(fmt.Sprintf("d/f%d", i), 1<<20)
	}
	r.mountBackground(r.slowServer(1 << 20))
	res := r.ok("warm", "--jobs", "1", r.dir)
	lines := strings.Split(strings.TrimSpace(res.out), "\n")
	last := lines[len(lines)-1]
	if len(lines) < 2 || !strings.HasPrefix(last, "4 files cached, 4.0 MiB: 4.0 MiB from the source in ") ||
		strings.ContainsAny(res.out, "\r\x1b") {
		t.Errorf("got %q", lines)
	}
	if res := r.ok("warm", filepath.Join(r.dir, "d", "f0")); res.out != "1 file cached, 1.0 MiB: all of it before\n" {
		t.Errorf("the second time: %q", res.out)
	}
	r.ok("unmount", r.dir)
}

func TestWarmDrawsABarOnATerminal(t *testing.T) {
	r := newRig(t)
	r.write("a", 2<<20)
	r.mountBackground(r.slowServer(1 << 20))
	screen, tty := terminal(t, 60)
	cmd := r.command(t.Context(), "warm", r.dir)
	cmd.Env = append(cmd.Env, "TERM=xterm")
	cmd.Stdout = tty
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = tty.Close()
	out, _ := io.ReadAll(screen) // EIO once the other side is closed
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	text := string(out)
	// What draws again goes up to the lines before and clears from there on (ECMA-48 CUU and ED).
	drawn := regexp.MustCompile("(?:\x1b\\[[0-9]*A)?\r?\x1b\\[0?J").Split(text, -1)
	if last := drawn[len(drawn)-1]; len(drawn) < 2 || !strings.Contains(drawn[0], "%") ||
		!strings.HasPrefix(last, "1 file cached, 2.0 MiB: 2.0 MiB from the source in ") {
		t.Errorf("got %q", text)
	}
	for _, d := range drawn[:len(drawn)-1] {
		if d = strings.TrimRight(d, "\r\n"); utf8.RuneCountInString(d) > 60 || strings.ContainsAny(d, "\n\x1b") {
			t.Errorf("drawn %q on a terminal of 60 columns", d)
		}
	}
	r.ok("unmount", r.dir)
}

// terminal makes a pseudo terminal (pty(7)) of so many columns.
func terminal(t *testing.T, columns uint16) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs a pseudo terminal: %v", err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	fd := int(screen.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})
	}
	if err == nil {
		tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Skipf("needs a pseudo terminal: %v", err)
	}
	return screen, tty
}

func TestInterruptedWarmStopsFetching(t *testing.T) {
	r := newRig(t)
	for i := range 20 {
		r.write(fmt.Sprintf("f%d", i), 1<<20)
	}
	r.mountBackground(r.slowServer(1 << 20))
	errOut := &lockedBuffer{}
	cmd := r.command(t.Context(), "warm", "--jobs", "1", r.dir)
	cmd.Stderr = errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the first bytes", func() bool { return r.status(r.dir).Counters.BytesSource > 0 })
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.HasPrefix(errOut.String(), "millrace: stopped: ") {
		t.Errorf("exit %d: %s", code, errOut)
	}
	waitFor(t, "the end of the fetching", func() bool {
		before := r.status(r.dir).Counters.BytesSource
		time.Sleep(1500 * time.Millisecond)
		return r.status(r.dir).Counters.BytesSource == before
	})
	if got := r.status(r.dir).Counters.BytesSource; got >= 20<<20 {
		t.Errorf("%d bytes were fetched all the same", got)
	}
	r.ok("unmount", r.dir)
}

// TestWarmGoesOnPastDirectories has two directories that cannot be listed among good ones, and a path that is not there
// before one that is: the rest is cached, and what is not is named.
func TestWarmGoesOnPastDirectories(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"a/x", "a/y", "forbidden/x", "no-index/x", "z/x", "z/deep/y"} {
		r.write(name, 1000)
	}
	files := http.FileServer(http.Dir(r.source))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/forbidden/":
			http.Error(w, "no", http.StatusForbidden)
		case "/no-index/":
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html><title>Welcome</title></html>")
		default:
			files.ServeHTTP(w, req)
		}
	}))
	t.Cleanup(s.Close)
	r.mountBackground(s.URL + "/")
	for _, paths := range [][]string{{r.dir}, {filepath.Join(r.dir, "not", "there"), r.dir}} {
		res := r.run(append([]string{"warm"}, paths...)...)
		if !strings.Contains(res.out, "4 files cached, ") || res.code == 0 {
			t.Errorf("%q, exit code %d", res.out, res.code)
		}
		if !strings.Contains(res.errOut, "2 directories could not be listed (/forbidden, /no-index)") ||
			len(paths) > 1 && !strings.Contains(res.errOut, "not/there") {
			t.Errorf("stderr: %s", res.errOut)
		}
	}
	r.ok("unmount", r.dir)
}
