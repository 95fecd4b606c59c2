package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Output is what a command wrote, and how long it ran, from its start to its end.
type Output struct {
	Stdout string
	Stderr string
	Took   time.Duration
}

// Command is a command that ends with ctx: its whole process group is killed. It also
// dies with this process.
func Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// A process that the command left behind may hold its pipes.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Run runs a command to its end, at most for the limit, under the context of the session.
func (s *Session) Run(limit time.Duration, name string, args ...string) (Output, error) {
	return Run(s.ctx, limit, name, args...)
}

// Run runs a command to its end, at most for the limit. Its error names the command and has the last
// line that it wrote to its standard error.
func Run(ctx context.Context, limit time.Duration, name string, args ...string) (Output, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return RunCmd(ctx, Command(ctx, name, args...))
}

// RunCmd is Run for a command that was made with Command and ctx, then changed. Output that already has
// a place to go is left alone.
func RunCmd(ctx context.Context, cmd *exec.Cmd) (Output, error) {
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	begin := time.Now()
	err := cmd.Run()
	out := Output{Stdout: stdout.String(), Stderr: stderr.String(), Took: time.Since(begin)}
	if err == nil {
		return out, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
		if errors.Is(cause, context.DeadlineExceeded) {
			err = fmt.Errorf("no end after %v: %w", out.Took.Round(time.Second), cause)
		}
	}
	return out, fmt.Errorf("%s: %w%s", strings.Join(append([]string{filepath.Base(cmd.Path)}, cmd.Args[1:]...), " "),
		err, lastLine(out.Stderr))
}

// lastLine is ": " and the last line of a text, "" without one.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	if text == "" {
		return ""
	}
	return ": " + text[strings.LastIndexByte(text, '\n')+1:]
}

// Process is a child that runs beside the session.
type Process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed once the child is waited for
}

// Start starts a child that is killed when the session closes, at the latest. What it writes to
// its standard error goes to logs.
func (s *Session) Start(logs io.Writer, name string, args ...string) (*Process, error) {
	// Not under the session's context: an interrupted run unmounts before its servers go.
	cmd := Command(context.WithoutCancel(s.ctx), name, args...)
	cmd.Stderr = logs
	return s.StartCmd(cmd)
}

// StartCmd is Start for a command that was made with Command.
func (s *Session) StartCmd(cmd *exec.Cmd) (*Process, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait()
	}()
	s.Defer(p.Kill)
	return p, nil
}

// Pid is the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Kill ends the process and its group, and waits for it. It may be called twice.
func (p *Process) Kill() {
	select {
	case <-p.ended:
		return
	default:
	}
	_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
	}
}
