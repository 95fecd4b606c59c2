package embedded_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
)

// noted is a store that notes which directories are listed, and tells their entries in the order of their names, as web
// servers and Alluxio do.
type noted struct {
	ufs.Store
	// mu guards listed.
	mu     sync.Mutex
	listed []string
}

func (n *noted) List(ctx context.Context, dir string, fn func(cacheclient.Info) error) error {
	n.mu.Lock()
	n.listed = append(n.listed, dir)
	n.mu.Unlock()
	var all []cacheclient.Info
	if err := n.Store.List(ctx, dir, func(i cacheclient.Info) error { all = append(all, i); return nil }); err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b cacheclient.Info) int { return strings.Compare(a.Path, b.Path) })
	for _, i := range all {
		if err := fn(i); err != nil {
			return err
		}
	}
	return nil
}

// after are the directories that were listed, once there are so many and no more come, in the order of their names.
func (n *noted) after(t *testing.T, most int) []string {
	t.Helper()
	for begun := time.Now(); time.Since(begun) < pace.Limit(5*time.Second); time.Sleep(20 * time.Millisecond) {
		n.mu.Lock()
		enough := len(n.listed) >= most
		n.mu.Unlock()
		if enough {
			break
		}
	}
	// What is not to come would come at once.
	time.Sleep(50 * time.Millisecond)
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(slices.Values(n.listed))
}

// TestWalk goes through a tree. The directories that come next are listed before they are asked for, each once; for one
// a look at a single directory nothing else is.
func TestWalk(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{"a/1", "a/2", "a/3/deep", "b/1", "c", "d", "e"} {
		if err := os.MkdirAll(filepath.Join(dir, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 300 {
		if err := os.WriteFile(filepath.Join(dir, "a", fmt.Sprintf("0%d", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	under, err := ufs.Open(t.Context(), dir, ufs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	store := &noted{Store: under}
	c, err := embedded.New(store, embedded.Config{TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for _, step := range []struct {
		list string
		want []string
	}{
		{"", []string{""}},
		{"a", []string{"", "a", "a/1", "a/2"}},
		{"a/1", []string{"", "a", "a/1", "a/2", "a/3"}},
		{"a/2", []string{"", "a", "a/1", "a/2", "a/3", "b"}},
		{"a/3", []string{"", "a", "a/1", "a/2", "a/3", "a/3/deep", "b"}},
		{"a/3/deep", []string{"", "a", "a/1", "a/2", "a/3", "a/3/deep", "b", "c"}},
		{"b", []string{"", "a", "a/1", "a/2", "a/3", "a/3/deep", "b", "b/1", "c"}},
	} {
		if _, err := c.List(t.Context(), step.list, cacheclient.Cursor{}, 10, false); err != nil {
			t.Fatal(err)
		}
		if got := store.after(t, len(step.want)); !slices.Equal(got, step.want) {
			t.Errorf("after %q the listed are %q, want %q", step.list, got, step.want)
		}
	}
	// The rest of the walk finds all of it, once.
	for _, list := range []string{"b/1", "c", "d", "e"} {
		if _, err := c.List(t.Context(), list, cacheclient.Cursor{}, 10, false); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := store.after(t, 11), []string{
		"", "a", "a/1", "a/2", "a/3", "a/3/deep", "b", "b/1", "c", "d",
		"e",
	}; !slices.Equal(got, want) {
		t.Errorf("the whole walk listed %q, want %q", got, want)
	}
}
