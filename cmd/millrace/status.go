package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/socket"
)

// statusPatience is how long a process may take to answer before its mounts count as
// unresponsive: the answer comes from its memory.
const statusPatience = 3 * time.Second

const statusAbout = `Shows each mount of this user, or the one on DIR: its source, the files and bytes known
of it, the bytes cached and their quota, the part of the reads that found all their bytes
cached, the bytes that came from the source, how many opens were handed to the kernel
(passthrough), and the keeper, which has the mount go on while the process that serves it is
replaced: its process, or on a node its socket; and of a cluster the leading master and what
each worker has. -o json is a list, as GET /v1/mounts on the mount's socket gives it, with the
keeper of a node beside that.
A mount whose process does not answer is shown as such, and the exit code is 1.`

// socketFlag adds --socket, which names one process to ask instead of all that the registry lists.
func socketFlag(f *command.Command, into *string) {
	f.Text(into, "socket", "`PATH` of the socket of the process to ask (default all of this user's mounts)")
}

func statusCommand() *command.Command {
	f := command.New("status", "[-o text|json] [--socket PATH] [DIR]",
		"show each mount: what it caches and where its reads came from", statusAbout)
	format, path := "", ""
	f.Format(&format)
	socketFlag(f, &path)
	f.ValidArgsFunction = completeMounts
	f.Runs(func(rest []string, out io.Writer) error {
		if len(rest) > 1 {
			return f.Wrong("status takes at most one DIR, not %s", command.Arguments(len(rest)))
		}
		return showStatus(path, rest, format, out)
	})
	return f
}

// showStatus shows the mounts of the process behind the socket at path, or of all processes, or the one that is named.
func showStatus(path string, named []string, format string, out io.Writer) error {
	servers, err := serversOf(path)
	if err != nil {
		return err
	}
	mounts, err := ask(context.Background(), servers)
	if err != nil {
		return err
	}
	if len(named) == 1 {
		if mounts, err = statusOf(named[0], mounts); err != nil {
			return err
		}
	}
	if err := commandline.PrintAs(format, out, mounts, func() error { return writeTable(out, mounts) }); err != nil {
		return err
	}
	return silent(mounts)
}

// statusOf picks the mount that arg names.
func statusOf(arg string, mounts []agent.MountStatus) ([]agent.MountStatus, error) {
	dir, err := mountedDir(arg)
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if m.Dir == dir {
			return []agent.MountStatus{m}, nil
		}
	}
	return nil, fmt.Errorf("no process answers for the mount on %s: it was made by another user, or with another "+
		"$MILLRACE_RUNTIME_DIR", dir)
}

// server is a process that serves mounts, and what the registry knows of them.
type server struct {
	socket string
	// listed are its mounts; none where the socket was given by hand.
	listed []agent.Entry
}

// serversOf is the one behind the socket at path, or where that is "" those of the registry, and the node's agent.
func serversOf(path string) ([]server, error) {
	if path != "" {
		return []server{{socket: path}}, nil
	}
	runtime, err := agent.RuntimeDir()
	if err != nil {
		return nil, err
	}
	entries, err := agent.OpenRegistry(runtime).List()
	if err != nil {
		return nil, err
	}
	servers := grouped(entries)
	if path, ok := nodeAgent(runtime); ok {
		servers = append(servers, server{socket: path})
	}
	return servers, nil
}

// nodeAgent is the socket of the node's agent, whose mounts are not in the registry, and whether it answers.
func nodeAgent(runtime string) (path string, answers bool) {
	path = filepath.Join(runtime, "agent.sock")
	return path, socket.Answers(path)
}

// grouped are the servers of the entries, in the order of their first mounts.
func grouped(entries []agent.Entry) []server {
	var servers []server
	for _, e := range entries {
		i := slices.IndexFunc(servers, func(s server) bool { return s.socket == e.Socket })
		if i < 0 {
			i, servers = len(servers), append(servers, server{socket: e.Socket})
		}
		servers[i].listed = append(servers[i].listed, e)
	}
	return servers
}

// ask asks every server at once, and gives all mounts in order of their directories. It fails where a server
// that was given by hand does.
func ask(ctx context.Context, servers []server) ([]agent.MountStatus, error) {
	answers, errs := make([][]agent.MountStatus, len(servers)), make([]error, len(servers))
	var asking sync.WaitGroup
	for i, s := range servers {
		asking.Go(func() { answers[i], errs[i] = s.mounts(ctx) })
	}
	asking.Wait()
	mounts := slices.Concat(answers...)
	for i, s := range servers {
		if errs[i] != nil && len(s.listed) == 0 {
			return nil, errs[i]
		}
	}
	slices.SortFunc(mounts, func(a, b agent.MountStatus) int { return strings.Compare(a.Dir, b.Dir) })
	if mounts == nil {
		mounts = []agent.MountStatus{}
	}
	return mounts, nil
}

// mounts are those that the server tells of, and those that it should tell of and does not.
func (s server) mounts(ctx context.Context) ([]agent.MountStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	var mounts []agent.MountStatus
	var err error
	if len(s.listed) == 0 || slices.ContainsFunc(s.listed, func(e agent.Entry) bool { return !e.Dead }) {
		client := agent.Dial(s.socket)
		mounts, err = client.Mounts(ctx)
		client.Close()
		if err != nil && ctx.Err() == nil {
			if next, is := replaced(s.listed); is {
				return next.mounts(ctx)
			}
		}
	}
	if len(s.listed) == 0 {
		askKeeper(ctx, s.socket, mounts)
	}
	for _, e := range s.listed {
		if !slices.ContainsFunc(mounts, func(m agent.MountStatus) bool { return m.Dir == e.Dir }) {
			mounts = append(mounts, unresponsive(e, err, ctx.Err() != nil))
		}
	}
	return mounts, err
}

// replaced is the process that serves the listed mounts in place of one that has died since, where there is one.
func replaced(listed []agent.Entry) (next server, is bool) {
	runtime, err := agent.RuntimeDir()
	if err != nil {
		return server{}, false
	}
	entries, err := agent.OpenRegistry(runtime).List()
	if err != nil {
		return server{}, false
	}
	for _, old := range listed {
		for _, e := range entries {
			if e.Dir == old.Dir && e.PID != old.PID && !e.Dead {
				next.socket, next.listed = e.Socket, append(next.listed, e)
			}
		}
	}
	return next, len(next.listed) > 0 && len(next.listed) == len(listed)
}

// unresponsive is what the registry knows of a mount, and why there is no answer.
func unresponsive(e agent.Entry, err error, late bool) agent.MountStatus {
	silent := agent.MountStatus{
		Dir: e.Dir, Source: e.Source, Name: agent.MountName(e.Dir), State: agent.StateUnresponsive,
		PID: e.PID, Socket: e.Socket, Started: e.Started.UTC().Truncate(time.Second), Keeper: keeperOf(e),
	}
	switch {
	case e.Dead:
		silent.Problem = "the process that served it has gone; millrace unmount cleans up"
	case late:
		silent.Problem = fmt.Sprintf("process %d does not answer within %v", e.PID, statusPatience)
	case err != nil:
		silent.Problem = err.Error()
	default:
		silent.Problem = fmt.Sprintf("process %d does not serve it", e.PID)
	}
	return silent
}

// silent is an error when a mount does not answer.
func silent(mounts []agent.MountStatus) error {
	for _, m := range mounts {
		if m.State != agent.StateServing {
			return fmt.Errorf("the mount on %s does not answer: %s", m.Dir, m.Problem)
		}
	}
	return nil
}

// writeTable writes a line for each mount.
func writeTable(out io.Writer, mounts []agent.MountStatus) error {
	if len(mounts) == 0 {
		_, err := fmt.Fprintln(out, "no mounts")
		return err
	}
	t := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "DIR\tSOURCE\tSTATE\tFILES\tKNOWN\tCACHED\tQUOTA\tHITS\tFROM SOURCE\tPASSTHROUGH\tKEEPER")
	for _, m := range mounts {
		_, _ = fmt.Fprintln(t, row(m))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	writeNotes(out, mounts)
	return writeClusters(out, mounts)
}

// writeNotes writes what was noticed of the source of each mount, and why its keeper does not keep it.
func writeNotes(out io.Writer, mounts []agent.MountStatus) {
	for _, m := range mounts {
		if k := m.Keeper; k != nil && !k.Keeps && m.State == agent.StateServing {
			who := k.Socket
			if k.PID != 0 {
				who = fmt.Sprintf("process %d", k.PID)
			}
			fmt.Fprintf(out, "%s: the keeper, %s: %s\n", commandline.OneLine(m.Dir), who,
				commandline.OneLine(k.Problem))
		}
		if m.Counters == nil {
			continue
		}
		for _, note := range m.Counters.SourceNotes {
			fmt.Fprintf(out, "%s: %s\n", commandline.OneLine(m.Dir), commandline.OneLine(note))
		}
	}
}

// writeClusters writes the leader and the workers of each cluster behind a mount.
func writeClusters(out io.Writer, mounts []agent.MountStatus) error {
	t := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, m := range mounts {
		if m.Capacity == nil || m.Capacity.Leader == "" {
			continue
		}
		_, _ = fmt.Fprintf(t, "\n%s\nmaster\t%s\tleads\n", commandline.OneLine(m.Dir),
			commandline.OneLine(m.Capacity.Leader))
		for _, l := range m.Capacity.Levels {
			where := "over the network"
			if l.Local {
				where = "this machine"
			}
			_, _ = fmt.Fprintf(t, "worker\t%s\t%s of %s\t%s\n", commandline.OneLine(l.Where),
				commandline.FormatSize(l.Used), commandline.FormatSize(l.Quota), where)
		}
	}
	return t.Flush()
}

// row is one line of the table.
func row(m agent.MountStatus) string {
	head := commandline.OneLine(m.Dir) + "\t" + commandline.OneLine(m.Source) + "\t" + m.State
	if m.Counters == nil || m.Capacity == nil || m.Session == nil {
		return head + "\t-\t-\t-\t-\t-\t-\t-\t" + nameOf(m.Keeper)
	}
	hits := "-"
	if ratio, ok := m.HitRatio(); ok {
		hits = fmt.Sprintf("%.1f%%", ratio*100)
	}
	return fmt.Sprintf("%s\t%d\t%s\t%s\t%s\t%s\t%s\t%d\t%s",
		head, m.Counters.FilesKnown, commandline.FormatSize(m.Counters.BytesKnown),
		commandline.FormatSize(m.Capacity.Used), commandline.FormatSize(m.Capacity.Quota), hits,
		commandline.FormatSize(m.Counters.BytesSource), m.Session.PassthroughOpens, nameOf(m.Keeper))
}
