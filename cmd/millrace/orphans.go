package main

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// reapOrphans takes leave of processes that were left to this one, the first of its container: doctor leaves a child
// that asks a mount which hangs, and each would stay as a zombie and count against the container's processes. It waits
// for any child, so the process must start none itself. It returns when the context ends.
func reapOrphans(ctx context.Context) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	defer signal.Stop(ended)
	for {
		for pid := 1; pid > 0; {
			// It fails where there are no children, and is 0 where none has ended.
			pid, _ = unix.Wait4(-1, nil, unix.WNOHANG, nil)
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return
		}
	}
}
