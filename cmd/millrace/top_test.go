package main

import (
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/fuse"
	"millrace.io/millrace/fuse/agent"
)

func topStatus(dir string, pid int, served, source, hits, misses, opens, ops int64) agent.MountStatus {
	return agent.MountStatus{
		Dir: dir, PID: pid, State: agent.StateServing,
		Counters: &cacheclient.Counters{BytesSource: source, Hits: hits, Misses: misses},
		Session: &fuse.Stats{
			PassthroughOpens: opens, Served: map[string]int64{"cache": served, "source": 1},
			Ops: map[string]fuse.OpStats{"read": {Count: ops}, "open": {Count: ops}},
		},
	}
}

func TestFrameOf(t *testing.T) {
	begun := time.Unix(1000, 0)
	before := topSample{at: begun, mounts: []agent.MountStatus{
		topStatus("/idle", 1, 100, 100, 5, 5, 5, 5),
		topStatus("/busy", 2, 1000, 0, 10, 10, 0, 0),
		topStatus("/resumed", 3, 1<<40, 1<<40, 1<<40, 0, 0, 1<<40),
		{Dir: "/silent", PID: 4, State: agent.StateUnresponsive},
		{Dir: "/back", PID: 5, State: agent.StateUnresponsive},
	}}
	now := topSample{at: begun.Add(2 * time.Second), mounts: []agent.MountStatus{
		topStatus("/idle", 1, 100, 100, 5, 5, 5, 5),
		topStatus("/busy", 2, 5000, 8000, 13, 11, 6, 50),
		topStatus("/resumed", 33, 200, 0, 0, 0, 0, 1),
		{Dir: "/silent", PID: 4, State: agent.StateUnresponsive, Problem: "it sleeps"},
		topStatus("/back", 5, 1<<40, 1<<40, 1, 1, 1, 1),
	}}
	f := frameOf(before, now)
	if f.Seconds != 2 || len(f.Mounts) != 5 || f.Slowest == nil {
		t.Fatalf("got %+v", f)
	}
	busy := f.Mounts[0]
	if busy.Dir != "/busy" || busy.LocalBytes != 2000 || busy.UnderStoreBytes != 4000 || busy.Ops != 50 ||
		busy.PassthroughOpens != 3 || *busy.HitRatio != 0.75 {
		t.Errorf("got %+v", busy)
	}
	if m := f.Mounts[1]; m.Dir != "/resumed" || m.LocalBytes != 100 || m.Ops != 1 || m.HitRatio != nil {
		t.Errorf("served by another process: %+v", m)
	}
	for _, m := range f.Mounts[2:] {
		if m.LocalBytes != 0 || m.Ops != 0 || m.HitRatio != nil {
			t.Errorf("idle, silent, or not known before: %+v", m)
		}
	}
}

func TestTopShowsNamesSafely(t *testing.T) {
	f := topFrame{
		Mounts: []topMount{{
			Dir: "/a\x1b[2Jb\nc", State: agent.StateServing, InFlight: 1, OldestOp: "read",
			Oldest: 1234.5,
		}},
		Slowest: []agent.TraceEvent{{
			Op: "read", Path: "/m/\x1b]0;x\a", LatencyNs: 1234567890, Bytes: 1 << 20,
			Offset: 5, Errno: "EIO", Source: "source",
		}},
	}
	text := strings.Join(f.lines(""), "\n")
	if strings.ContainsAny(text, "\x1b\a") || !strings.Contains(text, "1.23s read") ||
		!strings.Contains(text, "1.0 MiB at 5  EIO") {
		t.Errorf("got %q", text)
	}
}

func TestLatencyHasThreeFigures(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 999: "999ns", 1234: "1.23µs", 123456 * time.Nanosecond: "123µs", 12345678: "12.3ms",
		83 * time.Second: "1m23s", 99999: "100µs",
	} {
		if got := latency(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}
