package alluxio

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/pace"
)

// tree puts n files of size bytes into a directory.
func tree(t *testing.T, dir string, n int, size int64) []version {
	t.Helper()
	var files []version
	for i := range n {
		files = append(files, version{path: fmt.Sprintf("dir/%d.bin", i), size: size}.put(t, dir).age(t, dir))
	}
	return files
}

// TestTheLeaderIsKilled kills it during reads of files that are known and cached, listings, opens and lookups.
func TestTheLeaderIsKilled(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	dir := t.TempDir()
	files := tree(t, dir, 6, 4*mib)
	path := mountDir(t, c, dir, mib)
	here := newClient(t, config(t, c, path))
	remote := config(t, c, path)
	remote.NoShortCircuit = true
	there := newClient(t, remote)
	fresh := config(t, c, path)
	fresh.TTL, fresh.NameTTL = -1, -1
	asking := newClient(t, fresh)
	for _, v := range files {
		if err := here.Warm(t.Context(), v.path, nil); err != nil {
			t.Fatal(err)
		}
		mustRead(t, open(t, there, v.path), v, mib)
	}

	machine := busy(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	var failed errorsOf
	var reads, opens, lists stalls
	var done atomic.Int64
	loop := func(s *stalls, f func() error) {
		all.Go(func() {
			for ctx.Err() == nil {
				begin := time.Now()
				if err := f(); err != nil && ctx.Err() == nil {
					failed.add(err)
				}
				s.add(time.Since(begin))
				done.Add(1)
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	for i, client := range []*Client{here, there} {
		sequential, random := files[2*i], files[2*i+1]
		f, g := open(t, client, sequential.path), open(t, client, random.path)
		off := int64(0)
		loop(&reads, func() error {
			err := readPart(ctx, f, sequential, off, 256<<10)
			off = (off + 256<<10) % sequential.size
			return err
		})
		loop(&reads, func() error {
			return readPart(ctx, g, random, rand.Int64N(random.size-4096), 4096)
		})
	}
	loop(&lists, func() error {
		page, err := asking.List(ctx, "dir", cacheclient.Cursor{}, 100, true)
		if err == nil && len(page.Entries) < len(files) {
			err = fmt.Errorf("%d entries are listed", len(page.Entries))
		}
		return err
	})
	loop(&opens, func() error {
		f, err := tryOpen(ctx, here, files[rand.IntN(len(files))].path)
		if err != nil {
			return err
		}
		return f.Close()
	})
	var lookup atomic.Int64 // when a name was last found that nobody had asked for, in Unix nanoseconds
	n := 0
	loop(new(stalls), func() error {
		n++
		v := version{path: fmt.Sprintf("new/%d", n), size: 10}
		if err := v.write(dir); err != nil {
			return err
		}
		info, err := here.Stat(ctx, v.path)
		if err == nil && info.Size != v.size {
			err = fmt.Errorf("%s has %d bytes", v.path, info.Size)
		}
		lookup.Store(time.Now().UnixNano())
		return err
	})
	time.Sleep(500 * time.Millisecond)
	t.Logf("before: reads wait %v at most, opens %v, listings %v", reads.get(), opens.get(), lists.get())

	leader, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	if err := leader.Kill(); err != nil {
		t.Fatal(err)
	}
	next, err := c.Leader(upTo(t, 2*time.Minute))
	if err != nil || next == leader {
		t.Fatalf("leader %v after %s was killed: %v", next, leader.Name, err)
	}
	elected := time.Now()
	eventually(t, 30*time.Second, "a new name is found",
		func() bool { return time.Unix(0, lookup.Load()).After(elected) })
	answered := time.Since(elected)
	time.Sleep(500 * time.Millisecond)
	cancel()
	all.Wait()
	failed.report(t)
	late := machine()
	t.Logf("%d operations; the next master leads after %v, a new lookup is answered %v later; reads wait %v at most, "+
		"opens %v, listings %v; the machine adds up to %v",
		done.Load(), elected.Sub(killed), answered, reads.get(), opens.get(), lists.get(), late)
	if reads.get() > pace.Limit(300*time.Millisecond)+late {
		t.Errorf("a read of a file that is known and cached waited %v", reads.get())
	}
	if opens.get() > pace.Limit(300*time.Millisecond)+late {
		t.Errorf("an open of a file that is known waited %v", opens.get())
	}
	if answered > pace.Limit(time.Second)+late {
		t.Errorf("a new lookup was answered %v after the new leader", answered)
	}
}

// readPart reads and checks a part of a file, less of it at the end.
func readPart(ctx context.Context, f cacheclient.File, v version, off, n int64) error {
	d, err := f.Read(ctx, off, int(n))
	if err != nil {
		return fmt.Errorf("%s at %d: %w", v.path, off, err)
	}
	defer d.Release()
	if want := min(n, v.size-off); int64(d.Len()) != want {
		return fmt.Errorf("%s at %d: %d bytes of %d", v.path, off, d.Len(), want)
	}
	return v.check(off, d.Parts)
}

// TestAWorkerIsKilled kills and pauses the worker that a block is read from, in the middle of it.
func TestAWorkerIsKilled(t *testing.T) {
	noLeaks(t)
	harm := map[string]func(*cluster.Server) error{
		"killed": (*cluster.Server).Kill, "paused": (*cluster.Server).Pause,
	}
	for _, tc := range []struct {
		name      string
		harm      string
		blockSize int64
		remote    bool
		copies    int
	}{
		{"killed, local, one block", "killed", 96 * mib, false, 1},
		{"killed, local, blocks of 32 MiB", "killed", 32 * mib, false, 1},
		{"killed, remote, with a copy", "killed", 32 * mib, true, 2},
		{"killed, remote, the only copy", "killed", 32 * mib, true, 1},
		{"paused, local, blocks of 32 MiB", "paused", 32 * mib, false, 1},
		{"paused, remote, with a copy", "paused", 32 * mib, true, 2},
		{"paused, remote, the only copy", "paused", 32 * mib, true, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := shared.Get(t)
			victim := c.Workers()[0]
			dir := t.TempDir()
			v := version{path: "big.bin", size: 96 * mib}.put(t, dir).age(t, dir)
			cfg := config(t, c, mountDir(t, c, dir, tc.blockSize))
			cfg.NoShortCircuit = tc.remote
			client := newClient(t, cfg)
			conn := direct(t, c)
			for _, s := range c.Workers()[:tc.copies] {
				cacheAt(t, client, v.path, workerOf(t, conn, s))
			}
			f := open(t, client, v.path)
			if _, whole := f.Local(); whole != (!tc.remote && tc.blockSize >= v.size) {
				t.Errorf("the file is one local file: %v", whole)
			}
			var once sync.Once
			machine := busy(t)
			slowest, err := readAll(t.Context(), f, v, mib, func(off int64) {
				if off >= v.size/4 {
					once.Do(func() {
						if err := harm[tc.harm](victim); err != nil {
							t.Error(err)
						}
					})
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			n := client.Counters()
			t.Logf("the longest read took %v (the machine adds up to %v); %d MiB came from the source", slowest,
				machine(), n.BytesSource/mib)
			limit := pace.Limit(time.Second)
			if tc.harm == "paused" {
				// One that hangs is known by its silence alone, at more than one place.
				limit = pace.Limit(3 * time.Second)
			}
			if slowest > limit+machine() {
				t.Errorf("a read waited %v", slowest)
			}
			// And from the start, by somebody else.
			again, err := readAll(t.Context(), open(t, client, v.path), v, mib, nil)
			t.Logf("again: the longest read took %v", again)
			if err != nil || again > limit+machine() {
				t.Errorf("read again: %v, the longest in %v", err, again)
			}
		})
	}
}

// TestAllServersAreKilled: what is known stays known, what is open stays open, and the rest comes from the source; when
// the servers are there again, from the cache.
func TestAllServersAreKilled(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	dir := t.TempDir()
	files := tree(t, dir, 4, 3*mib)
	never := version{path: "never/read.bin", size: 3 * mib}.put(t, dir).age(t, dir)
	client := newClient(t, config(t, c, mountDir(t, c, dir, 4*mib)))
	for _, v := range files[:2] {
		if err := client.Warm(t.Context(), v.path, nil); err != nil {
			t.Fatal(err)
		}
	}
	cached, cold := open(t, client, files[0].path), open(t, client, files[2].path)
	for _, s := range c.Servers() {
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	told := func(what string, f func()) {
		begin := time.Now()
		f()
		t.Logf("%s: %v", what, time.Since(begin).Round(time.Millisecond))
	}
	told("read what is open and cached", func() { mustRead(t, cached, files[0], mib) })
	told("read what is open and cold", func() { mustRead(t, cold, files[2], mib) })
	told("open and read what is known and cached", func() {
		mustRead(t, open(t, client, files[1].path), files[1],
			mib)
	})
	told("open and read what is not known, while a leader is hoped for",
		func() { mustRead(t, open(t, client, files[3].path), files[3], mib) })
	told("open and read what is not known, after that", func() { mustRead(t, open(t, client, never.path), never, mib) })
	late := version{path: "late.bin", size: 2 * mib}.put(t, dir).age(t, dir)
	told("list", func() {
		page, err := client.List(t.Context(), "", cacheclient.Cursor{}, 100, true)
		if err != nil || !contains(page, late.path) || !contains(page, "dir") {
			t.Fatalf("the root lists %+v, %v", page, err)
		}
	})
	told("open and read a new file", func() { mustRead(t, open(t, client, late.path), late, mib) })
	begin := time.Now()
	for i := range 20 {
		v := version{path: fmt.Sprintf("more/%d", i), size: 1000}.put(t, dir).age(t, dir)
		mustRead(t, open(t, client, v.path), v, mib)
	}
	if took := time.Since(begin); took > pace.Limit(5*time.Second) {
		t.Errorf("20 names that were not known took %v while nobody answered", took)
	}

	shared.Get(t)
	for _, v := range append(files, never, late) {
		if err := client.Warm(upTo(t, 30*time.Second), v.path, nil); err != nil {
			t.Fatal(err)
		}
	}
	before := client.Counters().BytesSource
	for _, v := range append(files, never, late) {
		f := open(t, client, v.path)
		if _, whole := f.Local(); !whole {
			t.Errorf("%s is not one local file", filepath.Base(v.path))
		}
		mustRead(t, f, v, mib)
	}
	if now := client.Counters().BytesSource; now != before {
		t.Errorf("%d bytes came from the source after the servers were there again", now-before)
	}
}

func contains(page cacheclient.Page, path string) bool {
	for _, e := range page.Entries {
		if e.Path == path {
			return true
		}
	}
	return false
}

// upTo is a context that ends with the test or the limit.
func upTo(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(limit))
	t.Cleanup(cancel)
	return ctx
}
