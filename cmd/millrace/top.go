package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cmd/command"
	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse"
	"millrace.io/millrace/fuse/agent"
)

const (
	// firstInterval is how soon the first rates are shown, where the interval is longer.
	firstInterval = 500 * time.Millisecond
	// slowestShown is how many slow requests are shown.
	slowestShown = 10
)

const topAbout = `Shows what the mounts of this user do, the busiest first, again every --interval: opens handed to the
kernel, which reads those files by itself (PASSTHROUGH), bytes given to readers from the cache (LOCAL),
bytes that came from the source (UNDER STORE), requests a second, the part of the reads that
found all their bytes cached, the requests that wait now and the oldest of them, and below that the
slowest requests of the last minute. q or Ctrl-C ends it. Where the output is no terminal it is plain
text. -o json is a JSON object a line for each refresh.`

func topCommand() *command.Command {
	f := command.New("top", "[--interval TIME] [-n COUNT] [-o text|json] [--socket PATH]",
		"watch what the mounts do, as it happens", topAbout)
	t := &top{interval: 2 * time.Second}
	socket := ""
	f.Format(&t.format)
	socketFlag(f, &socket)
	command.Parsed(f, &t.interval, "interval", "`TIME` between two refreshes", "2s", commandline.ParseDuration)
	command.Parsed(f, &t.count, "count,n", "end after `COUNT` refreshes", "", commandline.CountTo(1<<30))
	t.servers = func() ([]server, error) { return serversOf(socket) }
	f.ValidArgsFunction = cobra.NoFileCompletions
	f.Runs(func(rest []string, out io.Writer) error {
		if len(rest) > 0 {
			return f.Wrong("top takes no arguments, not %q", rest[0])
		}
		t.out = out
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		return t.run(ctx)
	})
	return f
}

// top samples the mounts again and again, and shows the difference.
type top struct {
	out      io.Writer
	format   string
	interval time.Duration
	count    int
	servers  func() ([]server, error)
}

// run goes on until ctx ends, the user quits, or all refreshes are done that were asked for.
func (t *top) run(ctx context.Context) error {
	before, err := t.sample(ctx)
	if err != nil {
		return err
	}
	if terminal := terminalOf(t.out); terminal != nil && t.format == commandline.FormatText {
		return t.onScreen(ctx, terminal, before)
	}
	wait := min(t.interval, firstInterval)
	for n := 0; t.count == 0 || n < t.count; n++ {
		if pause(ctx, wait) {
			return nil
		}
		now, err := t.sample(ctx)
		if err != nil {
			return unlessEnded(ctx, err)
		}
		if err := t.show(frameOf(before, now), n); err != nil {
			return err
		}
		before, wait = now, t.interval
	}
	return nil
}

// unlessEnded is err, or nil where ctx has ended: that is the user's wish.
func unlessEnded(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}

// show writes the n-th frame.
func (t *top) show(f topFrame, n int) error {
	if t.format == commandline.FormatJSON {
		return json.NewEncoder(t.out).Encode(f)
	}
	text := strings.Join(f.lines(""), "\n") + "\n"
	if n > 0 {
		text = "\n" + text
	}
	_, err := io.WriteString(t.out, text)
	return err
}

// topSample is what all servers said at one time.
type topSample struct {
	at      time.Time
	mounts  []agent.MountStatus
	slowest []agent.TraceEvent
}

// sample asks all servers.
func (t *top) sample(ctx context.Context) (topSample, error) {
	servers, err := t.servers()
	if err != nil {
		return topSample{}, err
	}
	s := topSample{at: time.Now()}
	if s.mounts, err = ask(ctx, servers); err != nil {
		return topSample{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	slow := make([][]agent.TraceEvent, len(servers))
	var asking sync.WaitGroup
	for i, v := range servers {
		asking.Go(func() {
			client := agent.Dial(v.socket)
			defer client.Close()
			// A server that does not answer is seen in its mounts; one of an older build has no such list.
			slow[i], _ = client.Slowest(ctx, "")
		})
	}
	asking.Wait()
	s.slowest = slices.Concat(slow...)
	slices.SortFunc(s.slowest, func(a, b agent.TraceEvent) int { return cmp.Compare(b.LatencyNs, a.LatencyNs) })
	s.slowest = s.slowest[:min(len(s.slowest), slowestShown)]
	return s, nil
}

// topFrame is one refresh. It is also a line of `millrace top -o json`.
type topFrame struct {
	Time time.Time `json:"time"`
	// Seconds is the time that the rates are over.
	Seconds float64            `json:"seconds"`
	Mounts  []topMount         `json:"mounts"`
	Slowest []agent.TraceEvent `json:"slowest"`
}

// topMount is one mount. Rates are a second.
type topMount struct {
	Dir     string `json:"dir"`
	Source  string `json:"source"`
	State   string `json:"state"`
	Problem string `json:"problem,omitempty"`
	// PassthroughOpens are opens after which the kernel reads by itself, LocalBytes were given to readers from the
	// cache of this machine, WorkerBytes came from the workers of a cluster, UnderStoreBytes from the source.
	PassthroughOpens float64 `json:"passthroughOpensPerSecond"`
	LocalBytes       float64 `json:"localBytesPerSecond"`
	WorkerBytes      float64 `json:"workerBytesPerSecond"`
	UnderStoreBytes  float64 `json:"underStoreBytesPerSecond"`
	Ops              float64 `json:"opsPerSecond"`
	// HitRatio is that of the reads of this time; null where there were none.
	HitRatio *float64 `json:"hitRatio"`
	InFlight int64    `json:"inFlight"`
	OldestOp string   `json:"oldestOp,omitempty"`
	Oldest   float64  `json:"oldestMs"`
	Resumes  int64    `json:"resumes"`
}

// frameOf is what happened between two samples, the busiest mount first.
func frameOf(before, now topSample) topFrame {
	f := topFrame{
		Time: now.at.UTC(), Seconds: max(now.at.Sub(before.at).Seconds(), 1e-3), Mounts: []topMount{},
		Slowest: append([]agent.TraceEvent{}, now.slowest...),
	}
	for _, m := range now.mounts {
		// A mount that is new, or served by another process since, has counted from zero.
		was := agent.MountStatus{Session: &fuse.Stats{}, Counters: &cacheclient.Counters{}}
		if i := slices.IndexFunc(before.mounts, func(b agent.MountStatus) bool {
			return b.Dir == m.Dir &&
				b.PID == m.PID
		}); i >= 0 {
			was = before.mounts[i]
		}
		f.Mounts = append(f.Mounts, mountOf(was, m, f.Seconds))
	}
	slices.SortStableFunc(f.Mounts, func(a, b topMount) int {
		return cmp.Or(cmp.Compare(b.LocalBytes+b.UnderStoreBytes, a.LocalBytes+a.UnderStoreBytes),
			cmp.Compare(b.Ops, a.Ops),
			strings.Compare(a.Dir, b.Dir))
	})
	return f
}

// mountOf is what a mount did meanwhile; nothing where it did not answer before, or does not now.
func mountOf(was, m agent.MountStatus, seconds float64) topMount {
	t := topMount{Dir: m.Dir, Source: m.Source, State: m.State, Problem: m.Problem}
	if m.Session == nil || m.Counters == nil {
		return t
	}
	if m.Condition != nil && m.Condition.Abnormal {
		t.Problem = m.Condition.Message
	}
	t.InFlight, t.OldestOp, t.Oldest, t.Resumes = m.Session.InFlight, m.Session.OldestOp, m.Session.Oldest,
		m.Session.Resumes
	if was.Session == nil || was.Counters == nil {
		return t
	}
	rate := func(before, now int64) float64 { return float64(max(now-before, 0)) / seconds }
	t.PassthroughOpens = rate(was.Session.PassthroughOpens, m.Session.PassthroughOpens)
	t.LocalBytes = rate(localBytes(was.Session), localBytes(m.Session))
	worker := string(cacheclient.OriginWorker)
	t.WorkerBytes = rate(was.Session.Served[worker], m.Session.Served[worker])
	t.UnderStoreBytes = rate(was.Counters.BytesSource, m.Counters.BytesSource)
	t.Ops = rate(allOps(was.Session), allOps(m.Session))
	hits, misses := m.Counters.Hits-was.Counters.Hits, m.Counters.Misses-was.Counters.Misses
	if hits >= 0 && misses >= 0 && hits+misses > 0 {
		ratio := float64(hits) / float64(hits+misses)
		t.HitRatio = &ratio
	}
	return t
}

// localBytes were given to readers without asking the source.
func localBytes(s *fuse.Stats) int64 {
	return s.Served[string(cacheclient.OriginCache)] + s.Served[string(cacheclient.OriginStaging)]
}

func allOps(s *fuse.Stats) int64 {
	n := int64(0)
	for _, o := range s.Ops {
		n += o.Count
	}
	return n
}

// lines are the frame for people; hint goes to the end of the first.
func (f topFrame) lines(hint string) []string {
	var b strings.Builder
	plural := "s"
	if len(f.Mounts) == 1 {
		plural = ""
	}
	_, _ = fmt.Fprintf(&b, "millrace %s, %d mount%s%s\n\n", f.Time.Local().Format("15:04:05"), len(f.Mounts), plural,
		hint)
	t := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "MOUNT\tPASSTHROUGH\tLOCAL\tWORKERS\tUNDER STORE\tOPS\tHITS\tIN FLIGHT\tOLDEST\tSTATE")
	for _, m := range f.Mounts {
		_, _ = fmt.Fprintln(t, m.row())
	}
	_ = t.Flush()
	if len(f.Slowest) > 0 {
		b.WriteString("\nslowest of the last minute\n")
	}
	for _, e := range f.Slowest {
		b.WriteString(eventText(e) + "\n")
	}
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
}

// row is one line of the table.
func (m topMount) row() string {
	hits, oldest, state := "-", "-", m.State
	if m.HitRatio != nil {
		hits = fmt.Sprintf("%.1f%%", *m.HitRatio*100)
	}
	if m.InFlight > 0 {
		oldest = fmt.Sprintf("%s %s", latency(time.Duration(m.Oldest*float64(time.Millisecond))), m.OldestOp)
	}
	if m.Problem != "" {
		state += ": " + commandline.OneLine(m.Problem)
	}
	return fmt.Sprintf("%s\t%.1f/s\t%s/s\t%s/s\t%s/s\t%.0f/s\t%s\t%d\t%s\t%s", commandline.OneLine(m.Dir),
		m.PassthroughOpens, commandline.FormatSize(int64(m.LocalBytes)),
		commandline.FormatSize(int64(m.WorkerBytes)), commandline.FormatSize(int64(m.UnderStoreBytes)), m.Ops, hits,
		m.InFlight, oldest, state)
}
