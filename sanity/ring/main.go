// Command ring runs the tests of a ring (unit, test, e2e) by gotestsum, and is never silent for long.
//
// It says first what the ring needs, how long it takes, and how slow the machine is (sanity/pace). While nothing else
// is printed, a line each few seconds names what is being built or which test runs (events.go). gotestsum's own lines
// pass through as they are, and its summary and exit code are the last of it. With -reasons the skipped tests are
// counted by their reasons ahead of that summary, where a list of each would be pages.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"millrace.io/millrace/sanity/pace"
)

// settings are the command line.
type settings struct {
	name, needs, takes string
	reasons            bool
	silence            time.Duration
	patience           time.Duration // from the order to end until what is left is killed
	command            []string
}

func main() {
	var s settings
	flag.StringVar(&s.name, "name", "", "the `target` of make")
	flag.StringVar(&s.needs, "needs", "", "what the ring needs, for people")
	flag.StringVar(&s.takes, "takes", "", "how `long` it takes, for people")
	flag.BoolVar(&s.reasons, "reasons", false, "count skipped tests by reason")
	flag.DurationVar(&s.silence, "silence", 8*time.Second, "a line is printed after so much `time` without one")
	flag.DurationVar(&s.patience, "patience", 30*time.Second, "what is left so long after the order to end is killed")
	flag.Parse()
	s.command = flag.Args()
	if len(s.command) == 0 {
		fmt.Fprintln(os.Stderr,
			"ring: no command: ring [flags] gotestsum-command ... , in which EVENTS stands for the file of events")
		os.Exit(2)
	}
	code, err := run(s, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ring:", err)
	}
	os.Exit(code)
}

// run runs the command to its end and returns its exit code.
func run(s settings, out io.Writer) (int, error) {
	dir, err := os.MkdirTemp("", "millrace-ring-")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	events := filepath.Join(dir, "events.json")
	if err := os.WriteFile(events, nil, 0o600); err != nil {
		return 1, err
	}
	fmt.Fprintf(out, "make %s: needs %s; takes %s\n%s\n", s.name, s.needs, s.takes, pace.String())
	// The tests are a process group of their own, to all of which the end is told.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	r := &runner{settings: s, out: out, spoke: time.Now(), began: time.Now(), log: eventLog{path: events}}
	return r.run(ctx, events)
}

// runner passes the lines of one run on.
type runner struct {
	settings

	out   io.Writer
	began time.Time

	// mu guards the rest, and writing to out.
	mu sync.Mutex
	// spoke is when the last line was printed.
	spoke time.Time
	log   eventLog
}

// run starts the command, watches the silence, and waits.
func (r *runner) run(ctx context.Context, events string) (int, error) {
	args := make([]string, len(r.command))
	for i, a := range r.command {
		args[i] = strings.ReplaceAll(a, "EVENTS", events)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = environment(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// gotestsum ends before go test and the tests do, which would go on without it.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	read, write, err := os.Pipe()
	if err != nil {
		return 1, err
	}
	defer func() { _ = read.Close() }()
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		_ = write.Close()
		return 1, err
	}
	_ = write.Close()
	// The output ends when the last process that has it does, one that does not heed its end too.
	defer killAfter(ctx, cmd.Process.Pid, r.patience)()
	watched, done := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { r.watch(watched) })
	r.pass(read)
	err = cmd.Wait()
	if ctx.Err() != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	done()
	watch.Wait()
	return exitCode(err)
}

// environment has no test binary sleep for a second at its end, as the race detector has it: what it found by then is
// told, and sixty packages sleep for half a minute. What the user says of the detector is left alone.
func environment(env []string) []string {
	if slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "GORACE=") }) {
		return env
	}
	return append(env, "GORACE=atexit_sleep_ms=0")
}

// killAfter kills a process group that is there so long after the context's end, unless it is stopped before.
func killAfter(ctx context.Context, group int, patience time.Duration) (stop func()) {
	done := make(chan struct{})
	context.AfterFunc(ctx, func() {
		select {
		case <-done:
		case <-time.After(patience):
			_ = syscall.Kill(-group, syscall.SIGKILL)
		}
	})
	return sync.OnceFunc(func() { close(done) })
}

// exitCode is that of a command that ended so.
func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode(), nil
	default:
		return 1, err
	}
}

// pass copies the command's lines until it closes its output.
func (r *runner) pass(from io.Reader) {
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			r.print(line)
		}
		if err != nil {
			return
		}
	}
}

// print prints a line of the command. Ahead of the summary come the reasons of what was skipped.
func (r *runner) print(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reasons && strings.HasPrefix(line, "DONE ") {
		r.log.read()
		fmt.Fprint(r.out, r.log.skippedText())
	}
	_, _ = io.WriteString(r.out, line)
	r.spoke = time.Now()
}

// watch prints a line about what goes on whenever there has been none for the settings' time.
func (r *runner) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.breakSilence(time.Now())
		}
	}
}

// breakSilence prints what goes on, where nothing was printed for long.
func (r *runner) breakSilence(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.spoke) < r.silence {
		return
	}
	r.log.read()
	fmt.Fprintf(r.out, "  %6s  %s\n", now.Sub(r.began).Round(time.Second), r.log.goingOn(now))
	r.spoke = now
}
