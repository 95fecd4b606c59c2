package alluxio

import (
	"context"
	"fmt"
	"testing"
	"time"

	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/faultproxy"
	"millrace.io/millrace/sanity/pace"
)

// wired is a cluster with a proxy before each server.
var wired = cluster.Shared{Config: cluster.Config{Masters: 1, TierQuota: 64 * mib, Proxies: true}}

// wires are what a network does to connections.
var wires = []struct {
	name   string
	faults faultproxy.Faults
}{
	{"delay", faultproxy.Faults{DelayUp: 40 * time.Millisecond, DelayDown: 40 * time.Millisecond}},
	{"small pieces", faultproxy.Faults{Chunk: 1000, Pause: 50 * time.Microsecond}},
	{"one byte at a time", faultproxy.Faults{Chunk: 1, Pause: 20 * time.Microsecond}},
	{"resets", faultproxy.Faults{ResetAfter: 700_000}},
	{"half open", faultproxy.Faults{StallDown: true}},
	{"deaf and dumb", faultproxy.Faults{StallUp: true, StallDown: true}},
}

// TestBadWiresToWorkers reads what a worker has over a wire that misbehaves; the source is there to go on with.
func TestBadWiresToWorkers(t *testing.T) {
	noLeaks(t)
	c := wired.Get(t)
	dir := t.TempDir()
	v := version{path: "wire.bin", size: 3*mib + 123}.put(t, dir).age(t, dir)
	path := mountDir(t, c, dir, mib)
	for _, wire := range wires {
		for _, local := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, local %v", wire.name, local), func(t *testing.T) {
				calm(t, c)
				cfg := config(t, c, path)
				cfg.NoShortCircuit = !local
				client := newClient(t, cfg)
				if err := client.Warm(t.Context(), v.path, nil); err != nil {
					t.Fatal(err)
				}
				f := open(t, client, v.path)
				// In the middle of a block, for those that are there then.
				if err := readPart(t.Context(), f, v, 0, 300_000); err != nil {
					t.Fatal(err)
				}
				for _, w := range c.Workers() {
					w.Proxy().Set(wire.faults)
				}
				machine := busy(t)
				begin := time.Now()
				slowest, err := readAll(t.Context(), f, v, 100_000, nil)
				t.Logf("read in %v, the longest wait %v, %d bytes from the source", time.Since(begin), slowest,
					client.Counters().BytesSource)
				if err != nil {
					t.Error(err)
				}
				if slowest > pace.Limit(2*time.Second)+machine() {
					t.Errorf("a read waited %v", slowest)
				}
				begin = time.Now()
				if err := client.Close(); err != nil || time.Since(begin) > pace.Limit(5*time.Second) {
					t.Errorf("closed in %v: %v", time.Since(begin), err)
				}
			})
		}
	}
}

// TestColdReadsOverBadWires brings blocks into workers over wires that misbehave: what becomes a block is whole.
func TestColdReadsOverBadWires(t *testing.T) {
	noLeaks(t)
	c := wired.Get(t)
	dir := t.TempDir()
	path := mountDir(t, c, dir, mib)
	for i, wire := range wires {
		for name, change := range map[string]func(*Config){"here": func(*Config) {}, "elsewhere": nobody} {
			t.Run(wire.name+", "+name, func(t *testing.T) {
				calm(t, c)
				v := version{path: fmt.Sprintf("%s %d.bin", name, i), size: 2*mib + 123}.put(t, dir).age(t, dir)
				cfg := config(t, c, path)
				change(&cfg)
				client := newClient(t, cfg)
				f := open(t, client, v.path)
				for _, w := range c.Workers() {
					w.Proxy().Set(wire.faults)
				}
				slowest, err := readAll(t.Context(), f, v, 100_000, nil)
				t.Logf("the longest wait was %v", slowest)
				if err != nil {
					t.Error(err)
				}
				if err := client.Close(); err != nil {
					t.Error(err)
				}
				calm(t, c)
				tiers(t, c, f.(*file).l, v)
			})
		}
	}
}

// TestTheFirstBytesDoNotWaitForTheWorker reads the middle of a cold block while the worker takes long to make the file
// for it. What was read in the meantime is in the block at the end. A machine that is busy for longer than a block is
// cold for sure may have a reader wait all the same, but not each of three.
func TestTheFirstBytesDoNotWaitForTheWorker(t *testing.T) {
	noLeaks(t)
	c := wired.Get(t)
	calm(t, c)
	dir := t.TempDir()
	client := newClient(t, config(t, c, mountDir(t, c, dir, 16*mib)))
	// The connection to the worker is there.
	warm := version{path: "warm.bin", size: 1000}.put(t, dir).age(t, dir)
	mustRead(t, open(t, client, warm.path), warm, mib)
	const delay = openPatience * 2 / 3
	inTime := 0
	for i := range 3 {
		v := version{path: fmt.Sprintf("slow %d.bin", i), size: 9*mib + 123}.put(t, dir).age(t, dir)
		for _, w := range c.Workers() {
			w.Proxy().Set(faultproxy.Faults{DelayDown: delay})
		}
		f := open(t, client, v.path)
		begin := time.Now()
		for _, off := range []int64{5*mib + 10, 5*mib + 20_000} {
			if err := readPart(t.Context(), f, v, off, 8192); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took < delay/2 {
			inTime++
		} else {
			t.Logf("the first bytes came after %v, and the worker answers after %v", took, delay)
		}
		mustRead(t, f, v, mib)
		calm(t, c)
		awaitCached(t, client, v.path)
		if n := tiers(t, c, f.(*file).l, v); n != 1 {
			t.Errorf("%d blocks of %s are in tiers", n, v.path)
		}
	}
	if inTime == 0 {
		t.Error("the first bytes of no file came before the worker's answer")
	}
}

// TestBadWiresToMasters looks names up over wires that misbehave, and then those of all masters hang.
func TestBadWiresToMasters(t *testing.T) {
	noLeaks(t)
	c := wired.Get(t)
	dir := t.TempDir()
	known := version{path: "known.bin", size: 100_000}.put(t, dir).age(t, dir)
	path := mountDir(t, c, dir, mib)
	// What was mounted is taken away over wires that work.
	t.Cleanup(func() { heal(c) })
	for i, wire := range wires {
		t.Run(wire.name, func(t *testing.T) {
			calm(t, c)
			cfg := config(t, c, path)
			cfg.Timeout = 5 * time.Second
			client := newClient(t, cfg)
			mustRead(t, open(t, client, known.path), known, mib)
			for _, m := range c.Masters() {
				m.Proxy().Set(wire.faults)
			}
			begin := time.Now()
			mustRead(t, open(t, client, known.path), known, mib)
			if took := time.Since(begin); took > pace.Limit(2*time.Second) {
				t.Errorf("what is known was read in %v", took)
			}
			fresh := version{path: fmt.Sprintf("fresh %d", i), size: 1000}.put(t, dir).age(t, dir)
			begin = time.Now()
			mustRead(t, open(t, client, fresh.path), fresh, mib)
			t.Logf("a new name was read after %v", time.Since(begin))
			if took := time.Since(begin); took > pace.Limit(20*time.Second) {
				t.Errorf("a new name was read after %v", took)
			}
		})
	}
}

// calm has all wires of the cluster do what they should, and waits until the cluster is ready again.
func calm(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	heal(c)
	ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(time.Minute))
	defer cancel()
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

// heal has all wires of the cluster do what they should.
func heal(c *cluster.Cluster) {
	for _, s := range c.Servers() {
		s.Proxy().Set(faultproxy.Faults{})
	}
}
