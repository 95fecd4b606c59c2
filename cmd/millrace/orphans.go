package main

import (
	"bytes"
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// orphanGrace is how long a child may have ended before it is taken for an orphan. What this process starts itself,
	// it waits for: fusermount3, where it may not mount by itself. Such a child is gone at once, with its exit status.
	orphanGrace = 5 * time.Second
	// zombie is the state of a process that has ended and was not waited for.
	zombie = "Z"
)

// child is a process whose parent this one is; start tells it from a later one of the same id.
type child struct {
	pid   int
	start string
}

// reapOrphans takes leave of processes that were left to this one, the first of its container: doctor leaves a child
// that asks a mount which hangs, and each would stay as a zombie and count against the container's processes. Children
// that this process waits for are left alone for the grace. It returns when the context ends.
func reapOrphans(ctx context.Context, grace time.Duration) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGCHLD)
	defer signal.Stop(changed)
	ended := map[child]time.Time{}
	for {
		var due <-chan time.Time
		if ended = reapOlder(ended, zombies(), grace); len(ended) > 0 {
			due = time.After(grace)
		}
		select {
		case <-changed:
		case <-due:
		case <-ctx.Done():
			return
		}
	}
}

// reapOlder takes leave of those of the children that ended before the grace, and returns since when it knows of each
// of the others.
func reapOlder(known map[child]time.Time, now []child, grace time.Duration) map[child]time.Time {
	left := make(map[child]time.Time, len(now))
	for _, c := range now {
		since, before := known[c]
		switch {
		case !before:
			left[c] = time.Now()
		case time.Since(since) < grace:
			left[c] = since
		default:
			// It fails where the child was waited for meanwhile.
			_, _ = unix.Wait4(c.pid, nil, unix.WNOHANG, nil)
		}
	}
	return left
}

// zombies are the children of this process that have ended.
func zombies() []child {
	files, _ := filepath.Glob("/proc/[0-9]*/stat") // The pattern is well formed.
	var found []child
	for _, file := range files {
		// One that has gone meanwhile is none.
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if c, parent, state := readStat(text); parent == os.Getpid() && state == zombie {
			found = append(found, c)
		}
	}
	return found
}

// readStat reads what proc_pid_stat(5) says of a process; parent is 0 where that is not understood.
func readStat(text []byte) (c child, parent int, state string) {
	// The second field is a name in parentheses, and may have any characters.
	head, _, _ := bytes.Cut(text, []byte(" "))
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const stateAt, parentAt, startAt = 0, 1, 19
	if len(fields) <= startAt {
		return child{}, 0, ""
	}
	c.pid, _ = strconv.Atoi(string(head))
	parent, _ = strconv.Atoi(fields[parentAt])
	c.start = fields[startAt]
	return c, parent, fields[stateAt]
}
