package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// onlookerPause is how long the end of a pipe's readers may go unnoticed.
	onlookerPause = 500 * time.Millisecond
	// unwatchedTime is how long to go on where the end of the readers cannot be noticed.
	unwatchedTime = time.Minute
	// writeGrace is how long a write that hangs may go on after the end.
	writeGrace = 2 * time.Second
)

// whileRead is a context that ends when nothing reads what this process writes any more, what to say of that, "" for
// nothing, and what is to be called once in the end. A process that only writes would notice with what it writes next,
// which may be never; and one that exec started in a container not even then, as what is outside keeps its pipes. Its
// input ends with `kubectl exec -i`, without a terminal. All else that was started so has a limited time.
// D-239 says why.
func whileRead(ctx context.Context) (_ context.Context, note string, leave context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	switch {
	case !startedFromOutside():
	case isPipe(os.Stdin):
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	default:
		note = fmt.Sprintf(" for %v; with exec -i and without -t, for as long as that runs", unwatchedTime)
		ctx, cancel = context.WithTimeout(ctx, unwatchedTime)
	}
	go func() {
		defer cancel()
		tick := time.NewTicker(onlookerPause)
		defer tick.Stop()
		for !isAbandoned(os.Stdout) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	left := make(chan struct{})
	context.AfterFunc(ctx, func() {
		select {
		case <-left:
		case <-time.After(writeGrace):
			// A pipe that nothing empties takes no more, and holds up its writer for good.
			os.Exit(0)
		}
	})
	return ctx, note, func() { close(left); cancel() }
}

// startedFromOutside reports whether this process was started in a container by what is outside of it, as exec does:
// its parent is in no PID namespace that it sees.
func startedFromOutside() bool { return os.Getppid() == 0 }

// isPipe reports whether a file is a pipe or a socket.
func isPipe(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0
}

// isAbandoned reports whether a pipe or a socket has no reader any more (poll(2)), or a terminal was hung up.
func isAbandoned(f *os.File) bool {
	asked := []unix.PollFd{{Fd: int32(f.Fd())}}
	_, err := unix.Poll(asked, 0)
	return (err == nil || errors.Is(err, unix.EINTR)) && asked[0].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0
}
