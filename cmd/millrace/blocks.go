package main

import (
	"context"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse/agent"
)

const blocksAbout = `Shows which part of the file PATH, which lies in a millrace mount, is cached where: a line for
each block, or for as many as follow one another in the same place, and the part of the file that is
cached. -o json is a list of them, and the same as GET /v1/blocks on the mount's socket. With --socket, PATH may also be
relative to the one mount that the process serves.`

func blocksCommand() *command.Command {
	f := command.New("blocks", "[-o text|json] [--socket SOCKET] PATH", "show which part of a file is cached where",
		blocksAbout)
	format, socket := "", ""
	f.Format(&format)
	socketFlag(f, &socket)
	f.Runs(func(rest []string, out io.Writer) error {
		if len(rest) != 1 || rest[0] == "" {
			return f.Wrong("blocks takes one PATH in a millrace mount, not %s", command.Arguments(len(rest)))
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		return showBlocks(ctx, socket, rest[0], format, out)
	})
	return f
}

// showBlocks shows the blocks of the file that arg names.
func showBlocks(ctx context.Context, socket, arg, format string, out io.Writer) error {
	client, path, err := clientFor(socket, arg)
	if err != nil {
		return err
	}
	defer client.Close()
	blocks, err := client.Blocks(ctx, path)
	if err != nil {
		return err
	}
	return commandline.PrintAs(format, out, blocks, func() error { return writeBlocks(out, blocks) })
}

// clientFor gives a client of the process behind the socket, or where that is "" of the one whose mount arg lies
// in, and the path to ask it for.
func clientFor(socket, arg string) (*agent.Client, string, error) {
	if socket != "" {
		return agent.Dial(socket), arg, nil
	}
	path, err := resolve(arg)
	if err != nil {
		return nil, "", err
	}
	client, err := clientOf(path)
	return client, path, err
}

// writeBlocks writes a line for each block, and how much is cached in all.
func writeBlocks(out io.Writer, blocks []cacheclient.Block) error {
	t := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "OFFSET\tLENGTH\tWHERE")
	cached, size := int64(0), int64(0)
	for _, b := range blocks {
		where := "the source only"
		if len(b.Where) > 0 {
			where = commandline.OneLine(strings.Join(b.Where, ", "))
			cached += b.Length
		}
		size += b.Length
		_, _ = fmt.Fprintf(t, "%d\t%d\t%s\n", b.Offset, b.Length, where)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	part := 100.0
	if size > 0 {
		part = 100 * float64(cached) / float64(size)
	}
	_, err := fmt.Fprintf(out, "%s of %s cached (%.1f%%)\n", commandline.FormatSize(cached),
		commandline.FormatSize(size), part)
	return err
}
