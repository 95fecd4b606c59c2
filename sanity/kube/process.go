package kube

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a child that dies with this process.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed once the child is waited for
}

// launch starts a program whose output goes to the file of that name. The kernel kills it when the thread that started
// it ends, which need not be the end of the process; so the goroutine that starts it keeps its thread until the program
// is gone.
func launch(log, program string, args ...string) (*process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	cmd := exec.Command(program, args...) //nolint:noctx // It outlives the call that starts it.
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(p.ended)
		}
	}()
	return p, <-started
}

// kill ends the process with SIGKILL, and waits for it.
func (p *process) kill() error {
	if p == nil {
		return nil
	}
	select {
	case <-p.ended:
		return nil
	default:
	}
	if err := syscall.Kill(p.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(10 * time.Second):
		return fmt.Errorf("process %d does not end after SIGKILL", p.cmd.Process.Pid)
	}
}

// lastLines of a log, for an error.
func lastLines(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

func itoa(n int) string { return strconv.Itoa(n) }
