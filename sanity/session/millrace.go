package session

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"
)

// mountLimit bounds `millrace mount --background` and `millrace unmount`.
const mountLimit = 60 * time.Second

// Millrace drives the program as a user at a terminal does.
type Millrace struct {
	// Session owns the mounts.
	Session *Session
	// Bin is the path of the program.
	Bin string
	// Runtime is the program's runtime directory, so that its sockets and logs go with the session.
	Runtime string
}

// NewMillrace is the program at bin, with a runtime directory that goes with the session.
func NewMillrace(s *Session, bin string) (Millrace, error) {
	runtime, err := s.TempDir("", "millrace-run-")
	return Millrace{Session: s, Bin: bin, Runtime: runtime}, err
}

// Run runs the program to its end, at most for the limit.
func (m Millrace) Run(limit time.Duration, args ...string) (Output, error) {
	ctx, cancel := context.WithTimeout(m.Session.Context(), limit)
	defer cancel()
	cmd := Command(ctx, m.Bin, args...)
	cmd.Env = append(os.Environ(), "MILLRACE_RUNTIME_DIR="+m.Runtime)
	return RunCmd(ctx, cmd)
}

// Mount mounts the source on the directory in the background, with more flags where given, and returns how
// long that took. The mount goes with the session at the latest.
func (m Millrace) Mount(source, dir string, flags ...string) (time.Duration, error) {
	args := append([]string{"mount", "--background"}, flags...)
	m.Session.Defer(func() { m.Discard(dir) })
	out, err := m.Run(mountLimit, append(args, source, dir)...)
	if err != nil {
		return 0, err
	}
	if !Mounted(dir) {
		return 0, fmt.Errorf("millrace mount returned and nothing is mounted on %s", dir)
	}
	return out.Took, nil
}

// Unmount unmounts the directory with the program's own command.
func (m Millrace) Unmount(dir string) error {
	_, err := m.Run(mountLimit, "unmount", dir)
	return err
}

// Discard takes the mount away whatever state it is in, and ends its process. It does nothing where
// nothing is left.
func (m Millrace) Discard(dir string) {
	Detach(dir)
	end := time.Now().Add(5 * time.Second)
	for time.Now().Before(end) {
		if len(PidsWithArgument(dir)) == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, pid := range PidsWithArgument(dir) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}
