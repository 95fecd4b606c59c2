package embedded_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
)

// scoped opens a cache of the source in a directory of its own on the tier.
func (s *source) scoped(t *testing.T, dir, scope string) *embedded.Cache {
	t.Helper()
	return s.client(t, embedded.Config{Levels: tier(dir, 64*mib), Scope: scope})
}

// dirOf is the directory of a scope on the tier.
func (s *source) dirOf(dir, scope string) string {
	return filepath.Join(dir, embedded.SourceDir("http\nhttp://"+s.addr()+"/", scope))
}

// used makes the time of a directory's last use.
func used(t *testing.T, dir string, ago time.Duration) {
	t.Helper()
	at := time.Now().Add(-ago)
	for _, name := range []string{filepath.Join(dir, "lock"), dir} {
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestPrune removes what is not used: the oldest first, and neither what is open nor what is to be kept.
func TestPrune(t *testing.T) {
	src := newSource(t)
	src.write(t, "f", random(1, 4*mib))
	dir := t.TempDir()
	for i, scope := range []string{"oldest", "kept", "older", "newest", "open"} {
		c := src.scoped(t, dir, scope)
		_ = readFile(t, c, "f")
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		used(t, src.dirOf(dir, scope), time.Duration(10-i)*time.Hour)
	}
	live := src.scoped(t, dir, "open")
	used(t, src.dirOf(dir, "open"), 100*time.Hour)
	foreign := filepath.Join(dir, "somebody else's")
	outside := t.TempDir()
	for _, err := range []error{
		os.Mkdir(foreign, 0o700), os.WriteFile(filepath.Join(foreign, "f"), random(2, 4*mib), 0o600),
		os.WriteFile(filepath.Join(outside, "f"), random(2, 4*mib), 0o600),
		os.Symlink(outside, filepath.Join(dir, strings.Repeat("a", 16))),
		os.Mkdir(filepath.Join(dir, ".pruned-0123"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	keep := func(name string) bool { return name == filepath.Base(src.dirOf(dir, "kept")) }
	// Five of 4 MiB and a little are there: two must go for 13 MiB.
	freed, err := embedded.Prune(dir, keep, 13*mib)
	if err != nil || freed < 8*mib || freed > 9*mib {
		t.Errorf("freed %d bytes, %v", freed, err)
	}
	for scope, want := range map[string]bool{
		"oldest": false, "older": false, "kept": true, "newest": true,
		"open": true,
	} {
		if exists(src.dirOf(dir, scope)) != want {
			t.Errorf("%s: is there %v, want %v", scope, !want, want)
		}
	}
	if !exists(filepath.Join(foreign, "f")) || !exists(filepath.Join(outside, "f")) {
		t.Error("what is no source's was removed")
	}
	if exists(filepath.Join(dir, ".pruned-0123")) {
		t.Error("what an earlier prune left is still there")
	}
	before := src.gets.Load()
	if got := readFile(t, live, "f"); !bytes.Equal(got, random(1, 4*mib)) || src.gets.Load() != before {
		t.Error("an open cache lost its files")
	}
	if freed, err := embedded.Prune(filepath.Join(dir, "no such"), keep, 0); freed != 0 || err != nil {
		t.Errorf("no tier at all: %d, %v", freed, err)
	}
}

// TestPruneUnderUse prunes all the time while caches come and go.
func TestPruneUnderUse(t *testing.T) {
	src := newSource(t)
	want := random(1, 2*mib)
	src.write(t, "f", want)
	dir := t.TempDir()
	stop := make(chan struct{})
	var pruner sync.WaitGroup
	pruner.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := embedded.Prune(dir, func(string) bool { return false }, 0); err != nil {
				t.Error(err)
			}
		}
	})
	for range 40 {
		store, err := ufs.Open(t.Context(), "http://"+src.addr()+"/", ufs.Options{Deferred: true})
		if err != nil {
			t.Fatal(err)
		}
		c, err := embedded.New(store, embedded.Config{Levels: tier(dir, 64*mib)})
		if err != nil {
			t.Fatal(err)
		}
		if got := readFile(t, c, "f"); !bytes.Equal(got, want) {
			t.Error("wrong bytes")
		}
		if c.Capacity().Levels[0].Problem != "" {
			t.Error(c.Capacity().Levels[0].Problem)
		}
		if !exists(filepath.Join(src.dirOf(dir, ""), "lock")) {
			t.Error("the directory of an open cache is gone")
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	pruner.Wait()
}
