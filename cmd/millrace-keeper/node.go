package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse/keeper"
	"millrace.io/millrace/fuse/keeping"
	"millrace.io/millrace/fuse/socket"
)

const nodeUsage = `Usage: millrace-keeper --socket PATH [--check]

Keeps copies of the FUSE connections of a node's volumes, beside millrace node and millrace agent, so that both may die
at once. It serves nothing, reads nothing, and needs neither a network nor a capability.

  --socket PATH  socket on which the driver hands connections over
  --check        ask the keeper on the socket whether it answers, and end
`

const (
	// checkTime bounds the answer to --check.
	checkTime = 2 * time.Second
	// listenPause is the time between two attempts to listen.
	listenPause = 100 * time.Millisecond
)

// keepNode keeps the connections of a node until a signal ends it, or asks the process that does.
func keepNode(args []string) error {
	flags := flag.NewFlagSet("millrace-keeper", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	path := flags.String("socket", "", "")
	check := flags.Bool("check", false, "")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		_, err := fmt.Fprint(os.Stdout, nodeUsage)
		return err
	case err != nil:
		return usage(err)
	case flags.NArg() > 0:
		return usage(fmt.Errorf("millrace-keeper takes no arguments, not %q", flags.Arg(0)))
	case !filepath.IsAbs(*path):
		return usage(fmt.Errorf("--socket %q is not an absolute path", *path))
	}
	if *check {
		ctx, cancel := context.WithTimeout(context.Background(), checkTime)
		defer cancel()
		_, err := keeping.Dial(*path).List(ctx)
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	log := commandline.NewLog(os.Stderr, "info", "json")
	l, err := listen(ctx, *path)
	if err != nil {
		return err
	}
	log.Info("keeping", "socket", *path)
	return keeping.New(0, log).Serve(ctx, l, keeping.Patience)
}

// listen makes the socket. A keeper that is ending answers on it for as long as it has to, and is waited for.
func listen(ctx context.Context, path string) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(ctx, keeping.Patience+checkTime)
	defer cancel()
	for {
		l, err := socket.Listen(path)
		if !errors.Is(err, socket.ErrInUse) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(listenPause):
		}
	}
}

// usage is a command that was typed wrongly.
func usage(err error) error {
	return &keeper.EndedError{Code: commandline.ExitUsage, Sentence: err.Error() + "; see millrace-keeper --help"}
}
