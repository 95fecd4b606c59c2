package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// livesVar names the file in which the children of the tests count themselves.
const livesVar = "MILLRACE_TEST_LIVES"

func TestMain(m *testing.M) {
	if os.Getenv(childVar) != "" {
		os.Exit(childMain())
	}
	os.Exit(m.Run())
}

// childMain is a child that serves and dies, until it has done so often enough; then it means to end.
func childMain() int {
	child, err := Open()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	path, most, _ := strings.Cut(os.Getenv(livesVar), ":")
	text, _ := os.ReadFile(path)
	lives, err := strconv.Atoi(most)
	if err != nil || os.WriteFile(path, append(text, '.'), 0o600) != nil {
		return 1
	}
	if child.Resumes() {
		child.Serving()
	} else {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return 1
		}
		child.Kept(null, null)
	}
	if len(text)+1 == lives {
		child.Ended()
		return 0
	}
	return 3
}

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// TestPausesBetweenDeaths: a child that dies is replaced after a pause that grows with the deaths of the last minute,
// although each of them served.
func TestPausesBetweenDeaths(t *testing.T) {
	if testing.Short() {
		t.Skip("takes more than two seconds: make test")
	}
	const lives = 5
	count, err := os.CreateTemp(t.TempDir(), "lives")
	if err != nil {
		t.Fatal(err)
	}
	_ = count.Close()
	t.Setenv(livesVar, count.Name()+":"+strconv.Itoa(lives))
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = program.Close() }()
	var log logBuffer
	order := &Order{Dir: t.TempDir(), Args: []string{"keeper.test"}, Program: program}
	if err := Keep(order, slog.New(slog.NewTextHandler(io.MultiWriter(&log, os.Stderr), nil))); err != nil &&
		!errors.As(err, new(*EndedError)) {
		t.Fatal(err)
	}
	text, err := os.ReadFile(count.Name())
	if err != nil || len(text) != lives {
		t.Errorf("%d children lived, %v", len(text), err)
	}
	var pauses []string
	for line := range strings.Lines(log.b.String()) {
		if _, rest, found := strings.Cut(line, "pause="); found {
			pauses = append(pauses, strings.TrimSpace(rest))
		}
	}
	if got, want := strings.Join(pauses, " "), "100ms 200ms 300ms 1s"; got != want {
		t.Errorf("the pauses were %s, want %s", got, want)
	}
}

// TestRestEndsWithASignal: a request for the end waits for no pause.
func TestRestEndsWithASignal(*testing.T) {
	k := &keeper{asking: make(chan struct{}, 1)}
	k.asking <- struct{}{} // of a signal that a child answered long ago
	rested := make(chan struct{})
	go func() {
		k.rest(1 << 62)
		close(rested)
	}()
	for {
		select {
		case k.asking <- struct{}{}:
		case <-rested:
			return
		}
	}
}
