package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse"
	"millrace.io/millrace/fuse/agent"
)

// A mount in the background is this binary started again with the same arguments, which becomes a keeper in a
// session of its own, with the log for stdout and stderr, and the write end of a pipe whose
// number is in readyVar. Down the pipe comes one readyReport: the mount answers, or why
// there will be none. A pipe that ends without one is a process that died.
const readyVar = "MILLRACE_READY_FD"

// readyReport is what the background process tells the one that started it.
type readyReport struct {
	Code  int    `json:"code"`
	Error string `json:"error,omitempty"`
}

// startInBackground starts the background process with args and returns once its mount
// answers, or with its error.
func startInBackground(c *mountConfig, args []string) error {
	logPath, err := c.backgroundLog()
	if err != nil {
		return err
	}
	logFile, err := openLog(logPath)
	if err != nil {
		return err
	}
	defer func() { _ = logFile.Close() }()
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = read.Close() }()
	cmd := backgroundCommand(args, logFile, write)
	// Descriptors that our starter left open, an ssh session's for one, must not live on in
	// the background: whoever waits for their end would wait for the mount's.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("close-on-exec: %w", err)
	}
	// Before there is a child: a signal must not end us and leave it.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	err = cmd.Start()
	_ = write.Close()
	if err != nil {
		return fmt.Errorf("the background process could not be started: %w", err)
	}
	return awaitReady(cmd, read, logPath, signals)
}

// backgroundCommand is the process to start. /proc/self/exe is this binary even where the file
// was replaced meanwhile.
func backgroundCommand(args []string, logFile, ready *os.File) *exec.Cmd {
	// No deadline: it is to outlive us.
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Env = append(os.Environ(), readyVar+"=3")
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = []*os.File{ready}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// awaitReady waits for the background process's report. A signal meanwhile is passed on, so that
// Ctrl-C leaves nothing behind.
func awaitReady(cmd *exec.Cmd, ready io.Reader, logPath string, signals <-chan os.Signal) error {
	end := make(chan struct{})
	var passing sync.WaitGroup
	passing.Go(func() {
		for {
			select {
			case <-signals:
				_ = cmd.Process.Signal(syscall.SIGTERM)
			case <-end:
				return
			}
		}
	})
	defer func() {
		close(end)
		passing.Wait()
	}()
	var report readyReport
	if err := json.NewDecoder(ready).Decode(&report); err != nil {
		return fmt.Errorf("the background process died before the mount answered (%s): its log is %s", deathOf(cmd), logPath)
	}
	if report.Code != 0 {
		_ = cmd.Wait()
		return &childError{code: report.Code, sentence: report.Error}
	}
	return nil
}

// deathOf waits for the process and says how it ended.
func deathOf(cmd *exec.Cmd) string {
	if err := cmd.Wait(); err != nil {
		return err.Error()
	}
	return cmd.ProcessState.String()
}

// backgroundLog is the log of a background process: what the user gave, else a file in the
// runtime directory.
func (c *mountConfig) backgroundLog() (string, error) {
	if c.logFile != "" {
		return c.logFile, nil
	}
	runtime, err := agent.RuntimeDir()
	if err != nil {
		return "", err
	}
	return agent.OpenRegistry(runtime).File(withoutLinksAbove(c.dir), ".log"), nil
}

// readyPipe is the pipe whose number is in readyVar, nil where there is none.
func readyPipe() (*os.File, error) {
	text := os.Getenv(readyVar)
	if text == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("$%s is %q: it is set by millrace for itself", readyVar, text)
	}
	_ = os.Unsetenv(readyVar)
	unix.CloseOnExec(fd)
	pipe := os.NewFile(uintptr(fd), "ready")
	if pipe == nil {
		return nil, fmt.Errorf("$%s is %d, which is no open file", readyVar, fd)
	}
	return pipe, nil
}

// keepInBackground is the background process. Its child reports down the pipe.
func keepInBackground(c *mountConfig) error {
	pipe, err := readyPipe()
	if err != nil {
		return err
	}
	// One that was removed is of no use to anybody.
	started, _ := os.Getwd()
	// A working directory would keep the file system that it is on busy.
	if err := os.Chdir("/"); err != nil {
		return err
	}
	log := commandline.NewLog(os.Stderr, c.logLevel, c.logFormat)
	err = keep(c, started, os.Args, log, pipe)
	var child *childError
	if err == nil || errors.As(err, &child) && child.told {
		return err
	}
	log.Error("ended", "error", commandline.OneLine(err.Error()))
	return &childError{code: codeOf(err), sentence: err.Error(), told: true}
}

// serveAsChild mounts, or takes a mount over, and serves it. In the background it reports instead of printing.
func serveAsChild(c *mountConfig, k *kept) error {
	pipe, err := readyPipe()
	if err != nil {
		return err
	}
	report := func(r readyReport) {
		if pipe != nil {
			// Whoever waited may be gone; the mount stays.
			_ = json.NewEncoder(pipe).Encode(r)
			_ = pipe.Close()
			pipe = nil
		}
	}
	background := pipe != nil || c.background
	log, closeLog, err := childLog(c, background)
	if err == nil {
		defer closeLog()
		err = serve(c, k, log, func() { report(readyReport{}) })
	}
	if err == nil || !k.resumes() || errors.Is(err, fuse.ErrState) {
		// Otherwise the mount is there, and the next child may have what this one lacked.
		k.say(sayEnded)
	}
	if err != nil && background {
		log.Error("ended", "error", commandline.OneLine(err.Error()))
		report(readyReport{Code: codeOf(err), Error: commandline.OneLine(err.Error())})
		return &childError{code: codeOf(err), sentence: err.Error(), told: true}
	}
	return err
}

// childLog is where the child logs: stderr, which is the log in the background, or the file that was named.
func childLog(c *mountConfig, background bool) (log *slog.Logger, closeLog func(), err error) {
	if c.logFile == "" || background {
		return commandline.NewLog(os.Stderr, c.logLevel, c.logFormat), func() {}, nil
	}
	f, err := openLog(c.logFile)
	if err != nil {
		return commandline.NewLog(os.Stderr, c.logLevel, c.logFormat), func() {}, err
	}
	return commandline.NewLog(f, c.logLevel, c.logFormat), func() { _ = f.Close() }, nil
}
