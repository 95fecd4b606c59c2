package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"text/tabwriter"
	"time"

	"millrace.io/millrace/fuse/agent"
)

// statusPatience is how long a process may take to answer before its mount counts as
// unresponsive: the answer comes from its memory.
const statusPatience = 3 * time.Second

const statusAbout = `Shows each mount of this user, or the one on DIR: its source, the files and bytes known
of it, the bytes cached and their quota, the part of the reads that found all their bytes
cached, the bytes that came from the source, and how many opens were handed to the kernel
(passthrough). -o json is a list, and the same as GET /v1/mounts on the mount's socket.
A mount whose process does not answer is shown as such, and the exit code is 1.`

func runStatus(args []string, out io.Writer) error {
	f := newFlags("status", "[-o table|json] [DIR]", statusAbout, out)
	format := "table"
	f.choice(&format, "o", "`FORMAT` of the output: table or json", "table", "json")
	rest, err := f.parse(args)
	if err != nil {
		return err
	}
	if len(rest) > 1 {
		return f.wrong("status takes at most one DIR, not %d arguments", len(rest))
	}
	runtime, err := agent.RuntimeDir()
	if err != nil {
		return err
	}
	entries, err := agent.OpenRegistry(runtime).List()
	if err != nil {
		return err
	}
	if len(rest) == 1 {
		if entries, err = entryOf(rest[0], entries); err != nil {
			return err
		}
	}
	mounts := ask(entries)
	if format == "json" {
		err = json.NewEncoder(out).Encode(mounts)
	} else {
		err = writeTable(out, mounts)
	}
	if err != nil {
		return err
	}
	return silent(mounts)
}

// entryOf picks the entry of the mount that arg names.
func entryOf(arg string, entries []agent.Entry) ([]agent.Entry, error) {
	dir, err := mountedDir(arg)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Dir == dir {
			return []agent.Entry{e}, nil
		}
	}
	return nil, fmt.Errorf("no process answers for the mount on %s: it was made by another user, or with another $MILLRACE_RUNTIME_DIR", dir)
}

// ask asks every serving process at once, and keeps the order.
func ask(entries []agent.Entry) []agent.MountStatus {
	mounts := make([]agent.MountStatus, len(entries))
	var asking sync.WaitGroup
	for i, e := range entries {
		asking.Go(func() { mounts[i] = askOne(e) })
	}
	asking.Wait()
	return mounts
}

// askOne is the mount's own answer, or what the registry knows and why there is no answer.
func askOne(e agent.Entry) agent.MountStatus {
	silent := agent.MountStatus{
		Dir: e.Dir, Source: e.Source, Name: agent.MountName(e.Dir), State: agent.StateUnresponsive,
		PID: e.PID, Socket: e.Socket, Started: e.Started.UTC().Truncate(time.Second),
	}
	if e.Dead {
		silent.Problem = "the process that served it has gone; millrace unmount cleans up"
		return silent
	}
	ctx, cancel := context.WithTimeout(context.Background(), statusPatience)
	defer cancel()
	client := agent.Dial(e.Socket)
	defer client.Close()
	mounts, err := client.Mounts(ctx)
	for _, m := range mounts {
		if m.Dir == e.Dir {
			return m
		}
	}
	switch {
	case ctx.Err() != nil:
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
	_, _ = fmt.Fprintln(t, "DIR\tSOURCE\tSTATE\tFILES\tKNOWN\tCACHED\tQUOTA\tHITS\tFROM SOURCE\tPASSTHROUGH")
	for _, m := range mounts {
		_, _ = fmt.Fprintln(t, row(m))
	}
	return t.Flush()
}

// row is one line of the table.
func row(m agent.MountStatus) string {
	head := oneLine(m.Dir) + "\t" + oneLine(m.Source) + "\t" + m.State
	if m.Counters == nil || m.Capacity == nil || m.Session == nil {
		return head + "\t-\t-\t-\t-\t-\t-\t-"
	}
	hits := "-"
	if ratio, ok := m.HitRatio(); ok {
		hits = fmt.Sprintf("%.1f%%", ratio*100)
	}
	return fmt.Sprintf("%s\t%d\t%s\t%s\t%s\t%s\t%s\t%d", head, m.Counters.FilesKnown, formatSize(m.Counters.BytesKnown),
		formatSize(m.Capacity.Used), formatSize(m.Capacity.Quota), hits, formatSize(m.Counters.BytesSource), m.Session.PassthroughOpens)
}
