package alluxio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/pace"
)

// TestABlockThatHasNoPlace reads a block that is larger than any tier, and one for which the tiers, full of what is
// pinned, have no room.
func TestABlockThatHasNoPlace(t *testing.T) {
	noLeaks(t)
	c := small.Get(t)
	dir := t.TempDir()
	large := version{path: "large.bin", size: 24 * mib}.put(t, dir).age(t, dir)
	path := mountDir(t, c, dir, 64*mib)
	for name, change := range map[string]func(*Config){"here": func(*Config) {}, "elsewhere": nobody} {
		t.Run("too large, "+name, func(t *testing.T) {
			cfg := config(t, c, path)
			change(&cfg)
			client := newClient(t, cfg)
			mustRead(t, open(t, client, large.path), large, mib)
			if err := client.Warm(upTo(t, time.Minute), large.path, nil); err == nil {
				t.Error("a block that no tier can hold was warmed")
			}
		})
	}
	dir = t.TempDir()
	var pinned []version
	for i := range 38 {
		pinned = append(pinned, version{path: fmt.Sprintf("pinned/%d", i), size: mib}.put(t, dir).age(t, dir))
	}
	late := version{path: "late.bin", size: 12 * mib}.put(t, dir).age(t, dir)
	full := mountDir(t, c, dir, mib)
	restartWorkers(t, c)
	client := newClient(t, config(t, c, full))
	conn := direct(t, c)
	workers := []*rpc.Worker{workerOf(t, conn, c.Workers()[0]), workerOf(t, conn, c.Workers()[1])}
	if _, err := client.List(t.Context(), "pinned", cacheclient.Cursor{}, 100, true); err != nil {
		t.Fatal(err)
	}
	if err := client.Pin(t.Context(), "pinned", true); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // workers learn of what is pinned with a heartbeat
	for i, v := range pinned {
		cacheWhenThereIsRoom(t, client, v.path, workers[i%2])
	}
	for name, change := range map[string]func(*Config){"here": func(*Config) {}, "elsewhere": nobody} {
		t.Run("no room, "+name, func(t *testing.T) {
			cfg := config(t, c, full)
			change(&cfg)
			reader := newClient(t, cfg)
			if slowest := mustRead(t, open(t, reader, late.path), late, mib); slowest > pace.Limit(5*time.Second) {
				t.Errorf("a read waited %v for room", slowest)
			}
		})
	}
	for _, v := range pinned {
		if told, err := client.CachedPercentage(t.Context(), v.path); err != nil || told != 100 {
			t.Fatalf("%s, which is pinned, is cached by %d %%: %v", v.path, told, err)
		}
	}
	if err := client.Pin(t.Context(), "pinned", false); err != nil {
		t.Fatal(err)
	}
}

// restartWorkers has workers look at what is in their tiers: one whose files another test has removed counts them for
// ever, and cannot evict them.
func restartWorkers(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	for _, w := range c.Workers() {
		if err := errors.Join(w.Kill(), w.Start()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(time.Minute))
	defer cancel()
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

// cacheWhenThereIsRoom has a worker cache a file in a tier that other tests have filled: what they left goes first, but
// not while one of them still has it open.
func cacheWhenThereIsRoom(t *testing.T, c *Client, path string, w *rpc.Worker) {
	t.Helper()
	for deadline := time.Now().Add(pace.Limit(20 * time.Second)); ; time.Sleep(100 * time.Millisecond) {
		err := tryCacheAt(t.Context(), c, path, w)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestADamagedBlockIsRemoved has workers make blocks that are too short, as one does who is asked to cache with a wrong
// length, and reads them.
func TestADamagedBlockIsRemoved(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	dir := t.TempDir()
	conn := direct(t, c)
	w := workerOf(t, conn, c.Workers()[0])
	for _, tc := range []struct {
		name      string
		remote    bool
		blockSize int64
		cut       func(length int64) int64
		random    bool
	}{
		{"half, here, one block", false, 8 * mib, half, false},
		{"half, here", false, mib, half, false},
		{"half, remote", true, mib, half, false},
		{"half, remote, at random", true, mib, half, true},
		{"nothing, here", false, mib, nothing, false},
		{"nothing, remote", true, mib, nothing, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := version{path: "poisoned.bin", size: 3*mib + 11}.put(t, dir).age(t, dir)
			cfg := config(t, c, mountDir(t, c, dir, tc.blockSize))
			cfg.NoShortCircuit = tc.remote
			client := newClient(t, cfg)
			l := layoutNow(t, client, v.path)
			status, err := client.store.status(t.Context(), v.path)
			if err != nil {
				t.Fatal(err)
			}
			for k := range l.blocks() {
				under := l.underStore(k, status)
				under.Length = max(tc.cut(l.length(k)), 1)
				if err := w.Cache(t.Context(), l.block(k), tc.cut(l.length(k)), *under, false); err != nil {
					t.Fatal(err)
				}
				if st, err := os.Stat(blockPath(c.Workers()[0], l.block(k))); err != nil ||
					st.Size() != tc.cut(l.length(k)) {
					t.Fatalf("the poisoned block %d: %v, %v", k, st, err)
				}
			}
			// Until then the client believes that nobody has the blocks, and reads past what is damaged.
			time.Sleep(nowhereAge)
			f := open(t, client, v.path)
			if tc.random {
				for k := range l.blocks() {
					if err := readPart(t.Context(), f, v, int64(k)*l.blockSize+l.length(k)-5, 5); err != nil {
						t.Error(err)
					}
				}
			}
			mustRead(t, f, v, 256<<10)
			if n := client.Counters().Discarded; n < int64(l.blocks()) {
				t.Errorf("%d of %d blocks were discarded", n, l.blocks())
			}
			if err := client.Warm(t.Context(), v.path, nil); err != nil {
				t.Error(err)
			}
			tiers(t, c, l, v)
			mustRead(t, open(t, client, v.path), v, mib)
		})
	}
}

func half(length int64) int64 { return length / 2 }
func nothing(int64) int64     { return 0 }

// TestATierThatIsWiped removes a worker's files under it.
func TestATierThatIsWiped(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	dir := t.TempDir()
	v := version{path: "wiped.bin", size: 6 * mib}.put(t, dir).age(t, dir)
	path := mountDir(t, c, dir, mib)
	for name, change := range map[string]func(*Config){
		"here":   func(*Config) {},
		"remote": func(c *Config) { c.NoShortCircuit = true },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t, c, path)
			change(&cfg)
			client := newClient(t, cfg)
			if err := client.Warm(t.Context(), v.path, nil); err != nil {
				t.Fatal(err)
			}
			f := open(t, client, v.path)
			if err := readPart(t.Context(), f, v, 0, 2*mib); err != nil {
				t.Error(err)
			}
			for _, w := range c.Workers() {
				found, err := filepath.Glob(filepath.Join(w.TierDir, "alluxioworker", "[0-9]*"))
				if err != nil {
					t.Fatal(err)
				}
				for _, path := range found {
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
				}
			}
			mustRead(t, f, v, 256<<10)
			mustRead(t, open(t, newClient(t, cfg), v.path), v, 256<<10)
			tiers(t, c, f.(*file).l, v)
		})
	}
}
