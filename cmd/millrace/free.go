package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"

	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse/agent"
)

const freeAbout = `Drops what is cached of each PATH, which lies in a millrace mount: a file, or all files below a
directory. What is open stays. The source is not touched. -o json is {"freed": BYTES} for each PATH, as POST /v1/free on
the mount's socket.`

func freeCommand() *command.Command {
	f := command.New("free", "[-o text|json] PATH...", "drop what is cached of files", freeAbout)
	format := ""
	f.Format(&format)
	f.Runs(func(paths []string, out io.Writer) error {
		if len(paths) == 0 {
			return f.Wrong("free takes at least one PATH in a millrace mount")
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		for _, p := range paths {
			if err := free(ctx, p, format, out); err != nil {
				return err
			}
		}
		return nil
	})
	return f
}

// free drops what is cached of one path.
func free(ctx context.Context, arg, format string, out io.Writer) error {
	client, path, err := clientFor("", arg)
	if err != nil {
		return err
	}
	defer client.Close()
	freed, err := client.Free(ctx, path)
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("stopped: %s may be dropped in part", arg)
	case err != nil:
		return err
	}
	return commandline.PrintAs(format, out, agent.FreeAnswer{Freed: freed}, func() error {
		_, err := fmt.Fprintf(out, "%s of %s freed\n", commandline.FormatSize(freed), commandline.OneLine(arg))
		return err
	})
}
