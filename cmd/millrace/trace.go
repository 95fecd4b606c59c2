package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse/agent"
)

const traceAbout = `Shows each request of the kernel as it ends, for all mounts of this user or for what is at and below
PATH, until Ctrl-C: when it came, what it was, how long it took, which source served it, the file, and
the error if there was one. The source of a read is cache (a tier), staging (memory), worker (over the
network from a worker of a cluster) or source (the reader waited for it); an open is passthrough where
the kernel reads by itself, so that its reads are not seen. What comes faster than it can be written is left out, and counted. -o json is a JSON
object a line, as GET /v1/trace on the mount's socket. It ends with what reads it: in a container it follows for as long
as kubectl exec -i runs, and for a minute without -i or with -t, where it cannot tell.`

// errEnough ends a trace that has shown as many events as were asked for.
var errEnough = errors.New("enough")

func traceCommand() *command.Command {
	f := command.New("trace", "[--op OPS] [--slower TIME] [-n COUNT] [-o text|json] [--socket SOCKET] [PATH]",
		"show each request of the kernel, how long it took and which source served it", traceAbout)
	format, socket, ops, count, slower := "", "", "", 0, time.Duration(0)
	f.Format(&format)
	socketFlag(f, &socket)
	f.Text(&ops, "op", "kinds of requests to show, such as `OPS` read,open,lookup (default all)")
	command.Parsed(f, &slower, "slower", "show only what took `TIME` or longer", "0", commandline.ParseAge)
	command.Parsed(f, &count, "count,n", "end after `COUNT` requests", "", commandline.CountTo(1<<30))
	f.Runs(func(rest []string, out io.Writer) error {
		if len(rest) > 1 {
			return f.Wrong("trace takes at most one PATH, not %s", command.Arguments(len(rest)))
		}
		query := url.Values{}
		if ops != "" {
			query.Set("op", ops)
		}
		if slower > 0 {
			query.Set("slower", slower.String())
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		clients, err := tracedBy(socket, rest, query)
		if err != nil {
			return err
		}
		ctx, limit, leave := whileRead(ctx)
		defer leave()
		say := func() {
			_, _ = fmt.Fprintf(os.Stderr, "millrace: following the requests of %s from now on, until Ctrl-C%s\n",
				traced(query), limit)
		}
		return follow(ctx, clients, query, &traceWriter{format: format, out: out, left: count}, sync.OnceFunc(say))
	})
	return f
}

// tracedBy are the clients to ask; for a path it is one, and the path goes into the query.
func tracedBy(socket string, paths []string, query url.Values) ([]*agent.Client, error) {
	if len(paths) == 1 {
		client, path, err := clientFor(socket, paths[0])
		if err != nil {
			return nil, err
		}
		query.Set("path", path)
		return []*agent.Client{client}, nil
	}
	servers, err := serversOf(socket)
	if err != nil {
		return nil, err
	}
	var clients []*agent.Client
	for _, s := range servers {
		if len(s.listed) == 0 || !s.listed[0].Dead {
			clients = append(clients, agent.Dial(s.socket))
		}
	}
	if len(clients) == 0 {
		return nil, errors.New("there is no mount to trace")
	}
	return clients, nil
}

// follow writes what all clients tell until ctx ends, or all has been written that was asked for. It calls begun for
// each client that tells from then on.
func follow(ctx context.Context, clients []*agent.Client, query url.Values, w *traceWriter, begun func()) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range clients {
		defer c.Close()
		g.Go(func() error { return c.Trace(ctx, query, begun, w.write) })
	}
	if err := g.Wait(); !errors.Is(err, errEnough) {
		return err
	}
	return nil
}

// traced is what a query asks for, in words.
func traced(query url.Values) string {
	if path := query.Get("path"); path != "" {
		return commandline.OneLine(path)
	}
	return "all mounts"
}

// traceWriter writes events of several clients.
type traceWriter struct {
	format string
	// mu guards out and left, the number of events to write before errEnough, 0 for no end.
	mu   sync.Mutex
	out  io.Writer
	left int
}

func (w *traceWriter) write(e agent.TraceEvent) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left < 0 {
		return errEnough
	}
	var err error
	if w.format == commandline.FormatJSON {
		err = json.NewEncoder(w.out).Encode(e)
	} else {
		_, err = io.WriteString(w.out, traceLine(e))
	}
	if err != nil || w.left == 0 {
		return err
	}
	if w.left--; w.left == 0 {
		w.left = -1
		return errEnough
	}
	return nil
}

// traceLine is the event for people, with a line before it where some were lost.
func traceLine(e agent.TraceEvent) string {
	line := ""
	if e.Dropped > 0 {
		line = fmt.Sprintf("... %d requests came too fast and are not shown\n", e.Dropped)
	}
	return line + e.Time.Local().Format("15:04:05.000000") + "  " + eventText(e) + "\n"
}

// eventText is what happened, without the time.
func eventText(e agent.TraceEvent) string {
	path := e.Path
	if path == "" {
		path = "in " + filepath.Clean(e.Mount)
	}
	source := e.Source
	if source == "" {
		source = "-"
	}
	text := fmt.Sprintf("%-11s  %9s  %-11s  %s", e.Op, latency(time.Duration(e.LatencyNs)), source,
		commandline.OneLine(path))
	if e.Bytes > 0 {
		text += fmt.Sprintf("  %s at %d", commandline.FormatSize(e.Bytes), e.Offset)
	}
	if e.Reader != "" {
		text += "  by " + e.Reader
	}
	if e.Errno != "" {
		text += "  " + e.Errno
	}
	return strings.TrimRight(text, " ")
}

// latency is d with three figures.
func latency(d time.Duration) string {
	for unit := time.Nanosecond; ; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit).String()
		}
	}
}
