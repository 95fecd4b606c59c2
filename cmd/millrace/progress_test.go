package main

import (
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse"
	"millrace.io/millrace/fuse/agent"
)

var halfWay = agent.WarmProgress{
	BytesDone: 100 << 20, BytesTotal: 250 << 20, FilesDone: 3, FilesTotal: 12, Rate: 50 << 20,
}

func TestProgressWords(t *testing.T) {
	if got, want := percent(halfWay)+" "+progressWords(halfWay),
		" 40% 100 MiB / 250 MiB  50 MiB/s  3s left  3/12 files"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	listing := halfWay
	listing.Listing = true
	if got, want := progressWords(listing), "100 MiB / 250 MiB+  50 MiB/s  3/12+ files"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for want, w := range map[string]agent.WarmProgress{"  0%": {}, "100%": {BytesDone: 5, BytesTotal: 1, Rate: 1e18}} {
		if got := percent(w); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestProgressLine(t *testing.T) {
	if got, want := progressLine(halfWay), "100 MiB of 250 MiB, 50 MiB/s, 3 of 12 files, 3s left"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	listing := halfWay
	listing.Listing = true
	if got, want := progressLine(listing), "100 MiB of 250 MiB+, 50 MiB/s, 3 of 12+ files"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestProgressElsewhereIsPlain(t *testing.T) {
	var out strings.Builder
	p := newProgress(&out, commandline.FormatText)
	p.last = time.Now().Add(-2 * plainEvery)
	p.update(halfWay)
	p.update(halfWay)
	p.clear()
	done := halfWay
	done.Done, done.BytesSource, done.Warning = true, 1<<20, "w"
	p.update(done)
	p.summary(done)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || strings.ContainsAny(out.String(), "\r\x1b") ||
		!strings.HasPrefix(lines[1], "3 files cached, 100 MiB: 1.0 MiB from the source in ") || lines[2] != "Note: w" {
		t.Errorf("got %q", lines)
	}
}

func TestStatusRow(t *testing.T) {
	m := agent.MountStatus{
		Dir: "/d", Source: "s", State: agent.StateServing,
		Counters: &cacheclient.Counters{FilesKnown: 2, BytesKnown: 3 << 20, Hits: 2, Misses: 1, BytesSource: 1 << 20},
		Capacity: &cacheclient.Capacity{Used: 1 << 20, Quota: 2 << 30},
		Session:  &fuse.Stats{PassthroughOpens: 4},
	}
	if got, want := row(m), "/d\ts\tserving\t2\t3.0 MiB\t1.0 MiB\t2.0 GiB\t66.7%\t1.0 MiB\t4\tnone"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	m.Counters = &cacheclient.Counters{}
	if got := row(m); !strings.Contains(got, "\t-\t0 B\t") {
		t.Errorf("hits without reads: %q", got)
	}
	gone := agent.MountStatus{Dir: "/d", Source: "s", State: agent.StateUnresponsive}
	if got, want := strings.Count(row(gone), "\t"), strings.Count(row(m), "\t"); got != want {
		t.Errorf("%d columns, want %d", got, want)
	}
}
