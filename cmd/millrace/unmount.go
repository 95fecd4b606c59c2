package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/mountpoint"
)

// servingPatience is how long unmount waits for the process that served the mount to end.
const servingPatience = 10 * time.Second

const unmountAbout = `Ends the millrace mount on DIR and waits until the process that served it has ended. It also
ends a mount whose process has gone or no longer answers. A mount in use is refused, unless
--force detaches it: what is open then fails.`

func unmountCommand() *command.Command {
	f := command.New("unmount", "[--force] DIR", "end a mount, also one whose process has gone", unmountAbout)
	force := false
	f.Toggle(&force, "force", "detach the mount even if it is in use")
	f.ValidArgsFunction = completeMounts
	f.Runs(func(rest []string, _ io.Writer) error {
		if len(rest) != 1 || rest[0] == "" {
			return f.Wrong("unmount takes one DIR, not %s", command.Arguments(len(rest)))
		}
		dir, err := mountedDir(rest[0])
		if err != nil {
			return err
		}
		return unmount(dir, force)
	})
	return f
}

// unmount ends the mount on dir and waits for its process.
func unmount(dir string, force bool) error {
	runtime, err := agent.RuntimeDir()
	if err != nil {
		return err
	}
	registry := agent.OpenRegistry(runtime)
	entry, listed, err := registry.Find(dir)
	if err != nil {
		return err
	}
	if err := mountpoint.Unmount(dir, force); err != nil {
		if errors.Is(err, mountpoint.ErrBusy) {
			return fmt.Errorf("%s; unmount --force detaches it all the same",
				agent.BusySentence(dir, agent.Users(dir, usersNamed)))
		}
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	if !listed {
		return nil
	}
	if !entry.Dead {
		return awaitEnd(entry)
	}
	// Reading the registry again cleans up after a process that could not.
	_, _, err = registry.Find(dir)
	return err
}

// awaitEnd waits until the processes of the entry's mount have ended.
func awaitEnd(entry agent.Entry) error {
	for _, pid := range []int{entry.PID, entry.Keeper} {
		if pid <= 1 {
			continue
		}
		ended, err := processEnded(pid, servingPatience)
		switch {
		case err != nil:
			return fmt.Errorf("%s is unmounted, but process %d that served it cannot be waited for: %w", entry.Dir, pid,
				err)
		case !ended:
			return fmt.Errorf("%s is unmounted, but process %d that served it has not ended within %v: it may be "+
				"stopped or stuck", entry.Dir, pid, servingPatience)
		}
	}
	return nil
}

// processEnded waits at most limit for the end of a process that need not be our child.
func processEnded(pid int, limit time.Duration) (bool, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = unix.Close(fd) }()
	end := time.Now().Add(limit)
	for {
		left := max(time.Until(end), 0)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return n > 0, err
	}
}

// mountedDir finds the millrace mount that arg names, asking a mount that may be dead as
// little as possible: first by its path, then through symbolic links.
func mountedDir(arg string) (string, error) {
	abs, err := filepath.Abs(arg)
	if err != nil {
		return "", fmt.Errorf("%s: %w", arg, err)
	}
	dir := mountpoint.WithoutLinksAbove(abs)
	if _, mounted := mountpoint.Ours(dir); mounted {
		return dir, nil
	}
	resolved := ""
	err = mountpoint.Within(dir, func() (err error) {
		resolved, err = filepath.EvalSymlinks(dir)
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%s does not exist", abs)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "", err
	case err != nil:
		return "", fmt.Errorf("%s cannot be looked at: %w", abs, err)
	}
	on, fstype, _, err := mountpoint.Of(resolved)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w", abs, err)
	case fstype != mountpoint.FSType:
		return "", fmt.Errorf("%s is not a millrace mount", abs)
	case on != resolved:
		return "", fmt.Errorf("%s is inside the millrace mount %s, not a mount", abs, on)
	}
	return resolved, nil
}
