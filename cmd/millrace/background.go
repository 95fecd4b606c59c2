package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse"
	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/keeper"
	"millrace.io/millrace/fuse/mountpoint"
)

// readyReport is what the background process tells the one that started it.
type readyReport struct {
	Code  int    `json:"code"`
	Error string `json:"error,omitempty"`
}

// startInBackground starts the mount's keeper in a session of its own, and returns once its mount
// answers, or with its error. What comes down the pipe is one readyReport: the mount answers, or why there will be
// none. A pipe that ends without one is a process that died.
func startInBackground(c *mountConfig, order *keeper.Order) error {
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
	cmd, err := order.Background(keeperProgram(), logFile, write)
	if err != nil {
		return err
	}
	// Descriptors that our starter left open, an ssh session's for one, must not live on in
	// the background: a process that waits for their end would wait for the mount's.
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

// keeperProgram is what keeps a mount: a program of its own where that is beside this one, else this one.
func keeperProgram() string {
	if path, err := find("millrace-keeper"); err == nil {
		return path
	}
	return "/proc/self/exe"
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
		return fmt.Errorf("the background process died before the mount answered (%s): its log is %s", deathOf(cmd),
			logPath)
	}
	if report.Code != 0 {
		_ = cmd.Wait()
		return &keeper.EndedError{Code: report.Code, Sentence: report.Error}
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
	return agent.OpenRegistry(runtime).File(mountpoint.WithoutLinksAbove(c.dir), ".log"), nil
}

// serveAsChild mounts, or takes a mount over, and serves it. In the background it reports instead of printing.
func serveAsChild(c *mountConfig, k *keeper.Child) error {
	pipe, err := keeper.ReadyPipe()
	if err != nil {
		return err
	}
	report := func(r readyReport) {
		if pipe != nil {
			// The process that waited may be gone; the mount stays.
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
	if err == nil || !k.Resumes() || errors.Is(err, fuse.ErrState) {
		// Otherwise the mount is there, and the next child may have what this one lacked.
		k.Ended()
	}
	if err != nil && background {
		log.Error("ended", "error", commandline.OneLine(err.Error()))
		report(readyReport{Code: commandline.Code(err), Error: commandline.OneLine(err.Error())})
		return &keeper.EndedError{Code: commandline.Code(err), Sentence: err.Error(), Told: true}
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
