package alluxio

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/pace"
)

// TestClosingWhileAllReads closes the client and files while many read, for as long as it takes to meet what is not
// right: goroutines, loans and descriptors that are left, and reads that never end.
func TestClosingWhileAllReads(t *testing.T) {
	noLeaks(t)
	c := shared.Get(t)
	dir := t.TempDir()
	files := tree(t, dir, 6, 2*mib+99)
	path := mountDir(t, c, dir, mib)
	for round := range 8 {
		cfg := config(t, c, path)
		cfg.NoShortCircuit, cfg.WorkersRead = round%2 == 1, round%4 == 3
		cfg.Log = nil
		if round%4 == 2 {
			nobody(&cfg)
		}
		client, err := New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if round < 4 {
			if _, err := client.Free(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
		}
		var all sync.WaitGroup
		ended := make(chan struct{})
		for range 6 {
			all.Go(func() {
				for client.life.Err() == nil {
					closeWhileReading(t, client, files[rand.IntN(len(files))])
				}
			})
		}
		time.Sleep(time.Duration(50+rand.IntN(250)) * time.Millisecond)
		begin := time.Now()
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > pace.Limit(5*time.Second) {
			t.Errorf("round %d: Close took %v", round, took)
		}
		go func() {
			defer close(ended)
			all.Wait()
		}()
		select {
		case <-ended:
		case <-time.After(pace.Limit(5 * time.Second)):
			t.Fatal("readers go on after the client was closed")
		}
		if n := client.held.count(); n != 0 {
			t.Errorf("%d block files are held after Close", n)
		}
	}
}

// closeWhileReading closes a file while others read it. What is read is right.
func closeWhileReading(t *testing.T, client *Client, v version) {
	t.Helper()
	f, err := tryOpen(t.Context(), client, v.path)
	if err != nil {
		return
	}
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				off := rand.Int64N(v.size)
				d, err := f.Read(t.Context(), off, 1+rand.IntN(300_000))
				if err != nil {
					return
				}
				if local, ok := f.Local(); ok && local == nil {
					t.Error("a local file that is none")
				}
				if err := v.check(off, d.Parts); err != nil {
					t.Error(err)
				}
				d.Release()
			}
		})
	}
	time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
	_ = f.Close()
	if err := f.Close(); err == nil {
		t.Error("closed twice")
	}
	readers.Wait()
	if _, err := f.Read(t.Context(), 0, 1); !errors.Is(err, cacheclient.ErrClosed) {
		t.Errorf("a read after Close: %v", err)
	}
}
