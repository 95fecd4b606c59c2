package embedded_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/sanity/pace"
)

// TestOneBadMomentIsNoChange has a server say once, in each way, that it has no such version, which it has. The read
// goes on.
func TestOneBadMomentIsNoChange(t *testing.T) {
	for _, code := range []int{
		http.StatusNotFound, http.StatusGone, http.StatusPreconditionFailed,
		http.StatusRequestedRangeNotSatisfiable,
	} {
		src := newSource(t)
		want := random(4, 6<<20)
		src.write(t, "a", want)
		c := src.client(t, embedded.Config{Levels: tier(t.TempDir(), 64<<20)})
		var n atomic.Int64
		src.setFault(func(*http.Request) fault {
			if n.Add(1) == 2 {
				return status(code, "")
			}
			return nil
		})
		if got := readFile(t, c, "a"); !bytes.Equal(got, want) {
			t.Errorf("%d: wrong bytes", code)
		}
		if n.Load() < 2 || c.Counters().Changed != 0 {
			t.Errorf("%d: %d requests, %d changes", code, n.Load(), c.Counters().Changed)
		}
	}
}

// TestAVersionThatIsNotGivenIsAnError has a source say that it has a version and never give it: that is an error, soon,
// of this read, and no change.
func TestAVersionThatIsNotGivenIsAnError(t *testing.T) {
	src := newSource(t)
	want := random(4, 3<<20)
	src.write(t, "a", want)
	c := src.client(t, embedded.Config{Levels: tier(t.TempDir(), 64<<20)})
	f := open(t, c, "a")
	src.setFault(func(*http.Request) fault { return status(http.StatusNotFound, "") })
	begun := time.Now()
	_, err := f.Read(t.Context(), 0, 100)
	if errors.Is(err, cacheclient.ErrStale) || errors.Is(err, fs.ErrNotExist) || err == nil {
		t.Errorf("the read: %v", err)
	}
	pace.Within(t, "the read", time.Since(begun), 5*time.Second)
	if n := c.Counters(); n.SourceDown || n.Changed != 0 {
		t.Errorf("the source is down: %v, %d changes", n.SourceDown, n.Changed)
	}
	src.setFault(nil)
	if got, err := readAll(t.Context(), f); err != nil || !bytes.Equal(got, want) {
		t.Errorf("after that: %d bytes, %v", len(got), err)
	}
}

// TestAVersionThatComesBack takes a file away and puts it back as it was. A new open reads it, and so does a handle
// that was open all the time, also where it is not opened anew.
func TestAVersionThatComesBack(t *testing.T) {
	pace.Long(t)
	for _, reopened := range []bool{true, false} {
		src := newSource(t)
		want := random(4, 6<<20)
		src.write(t, "a", want)
		c := src.client(t, embedded.Config{Levels: tier(t.TempDir(), 64<<20)})
		first := open(t, c, "a")
		d, err := first.Read(t.Context(), 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		d.Release()
		move(t, filepath.Join(src.dir, "a"), filepath.Join(src.dir, "away"))
		if _, err := first.Read(t.Context(), 5<<20, 100); !errors.Is(err, cacheclient.ErrStale) {
			t.Fatalf("a version that is gone: %v", err)
		}
		move(t, filepath.Join(src.dir, "away"), filepath.Join(src.dir, "a"))
		if reopened {
			again := open(t, c, "a")
			if got, err := readAll(t.Context(), again); err != nil || !bytes.Equal(got, want) {
				t.Errorf("opened anew: %d bytes, %v", len(got), err)
			}
			// The word of the source counts for all.
			if got, err := readAll(t.Context(), first); err != nil || !bytes.Equal(got, want) {
				t.Errorf("open all the time, beside another: %d bytes, %v", len(got), err)
			}
			continue
		}
		for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			got, err := readAll(t.Context(), first)
			if err == nil {
				if !bytes.Equal(got, want) {
					t.Error("open all the time: wrong bytes")
				}
				break
			}
			if time.Since(begun) > pace.Limit(10*time.Second) {
				t.Fatalf("open all the time: %v", err)
			}
		}
	}
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// TestAnOpenOfAVersionThatIsGone asks the source again, whatever was known before.
func TestAnOpenOfAVersionThatIsGone(t *testing.T) {
	store := newFakeStore()
	store.put("a", random(1, 2<<20), "one")
	c := cacheOf(t, store, embedded.Config{TTL: time.Hour, Levels: tier(t.TempDir(), 64<<20)})
	f := open(t, c, "a")
	info := f.Info()
	store.put("a", random(2, 2<<20), "two")
	if _, err := f.Read(t.Context(), 0, 10); !errors.Is(err, cacheclient.ErrStale) {
		t.Fatalf("read of a version that is gone: %v", err)
	}
	if _, err := c.Open(t.Context(), info); !errors.Is(err, cacheclient.ErrStale) {
		t.Errorf("open of a version that is gone: %v", err)
	}
	store.put("a", random(1, 2<<20), "one")
	again, err := c.Open(t.Context(), info)
	if errors.Is(err, cacheclient.ErrStale) {
		// The new version was believed; it is looked up and asked for in turn.
		c.Forget("a")
		again, err = c.Open(t.Context(), info)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if got, err := readAll(t.Context(), again); err != nil || !bytes.Equal(got, random(1, 2<<20)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
