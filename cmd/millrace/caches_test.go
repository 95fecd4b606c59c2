package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/handover"
)

// newBackend is an agent's, with a source of one file "f".
func newBackend(t *testing.T) (b *backend, source string) {
	t.Helper()
	source = t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "f"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	b = &backend{
		tierDirs: []string{t.TempDir(), t.TempDir()}, quota: 1 << 20, keep: 1 << 30, allowLocal: []string{source},
		budget: embedded.NewBudget(8 << 20), log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	t.Cleanup(func() {
		b.pruned.Wait()
		if len(b.caches.byKey) > 0 {
			t.Errorf("%d caches are left open", len(b.caches.byKey))
		}
	})
	return b, source
}

func (b *backend) mustOpen(t *testing.T, v handover.Volume) cacheclient.Client {
	t.Helper()
	c, err := b.open(t.Context(), v, false)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func cacheOf(t *testing.T, c cacheclient.Client) *embedded.Cache {
	t.Helper()
	use, ok := c.(*volumeCache)
	if !ok {
		t.Fatalf("%T is no use of a cache", c)
	}
	return use.Cache
}

// TestVolumesShareACache has volumes of one source share what is cached, with the largest quota and the shortest belief
// of those that are there, and volumes that read something else not.
func TestVolumesShareACache(t *testing.T) {
	b, source := newBackend(t)
	first := b.mustOpen(t, handover.Volume{Source: source, Quota: 1 << 20})
	for what, v := range map[string]handover.Volume{
		"a larger quota":      {Source: source, Quota: 4 << 20},
		"a smaller quota":     {Source: source, Quota: 1 << 19},
		"a shorter belief":    {Source: source, Revalidate: time.Second},
		"another timeout":     {Source: source, Timeout: time.Second},
		"fewer connections":   {Source: source, Connections: 2},
		"other watermarks":    {Source: source, High: 0.8, Low: 0.5},
		"the path as a URL":   {Source: "file://" + source},
		"an option's default": {Source: source, Options: map[string]string{"copy_links": "true"}},
	} {
		second := b.mustOpen(t, v)
		if cacheOf(t, second) != cacheOf(t, first) {
			t.Errorf("%s: another cache", what)
		}
		want := max(v.Quota, 1<<20)
		if got := second.Capacity().Quota; got != want {
			t.Errorf("%s: the quota is %d, not %d", what, got, want)
		}
		if err := errors.Join(second.Close(), second.Close()); err != nil {
			t.Error(err)
		}
		if got := first.Capacity().Quota; got != 1<<20 {
			t.Errorf("%s: the quota stays %d", what, got)
		}
		if _, err := first.Stat(t.Context(), "f"); err != nil {
			t.Errorf("%s: closed for others: %v", what, err)
		}
	}
	for what, v := range map[string]handover.Volume{
		"another option": {Source: source, Options: map[string]string{"one_file_system": "true"}},
		"another tier":   {Source: source, TierDir: b.tierDirs[1]},
	} {
		other := b.mustOpen(t, v)
		if cacheOf(t, other) == cacheOf(t, first) {
			t.Errorf("%s: the same cache", what)
		}
		_ = other.Close()
	}
	_ = first.Close()
	if _, err := first.Stat(t.Context(), "f"); !errors.Is(err, cacheclient.ErrClosed) {
		t.Errorf("after the last use: %v", err)
	}
}

// TestSharedBelief asks the source as often as the volume wishes that wants it most, as long as it is there.
func TestSharedBelief(t *testing.T) {
	b, source := newBackend(t)
	patient := b.mustOpen(t, handover.Volume{Source: source, Revalidate: time.Hour})
	defer patient.Close()
	name := filepath.Join(source, "new")
	missing := func() bool {
		_, err := patient.Stat(t.Context(), "new")
		return err != nil
	}
	if !missing() {
		t.Fatal("it is not there yet")
	}
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !missing() {
		t.Error("the source was asked within the hour")
	}
	hasty := b.mustOpen(t, handover.Volume{Source: source, Revalidate: time.Nanosecond})
	if missing() {
		t.Error("the shorter belief does not count")
	}
	_ = hasty.Close()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if missing() {
		t.Error("the shorter belief counts when its volume has gone")
	}
}

// TestClosingCacheIsWaitedFor opens and closes volumes of one source side by side: none is refused, and the last closes
// the cache.
func TestClosingCacheIsWaitedFor(t *testing.T) {
	b, source := newBackend(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 20 {
				c, err := b.open(t.Context(), handover.Volume{Source: source, Quota: int64(1+(i+n)%3) << 20}, false)
				if err != nil {
					t.Errorf("%d, %d: %v", i, n, err)
					return
				}
				if _, err := c.Stat(t.Context(), "f"); err != nil {
					t.Errorf("%d, %d: %v", i, n, err)
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// TestCacheThatDoesNotOpen tells all waiters, and keeps none of it.
func TestCacheThatDoesNotOpen(t *testing.T) {
	b, source := newBackend(t)
	if _, err := b.open(t.Context(), handover.Volume{Source: source, Quota: 1 << 60}, false); err == nil {
		t.Fatal("a quota larger than the file system is accepted")
	}
	c := b.mustOpen(t, handover.Volume{Source: source})
	defer c.Close()
	if _, err := b.open(t.Context(), handover.Volume{Source: source, Quota: 1 << 60}, false); err == nil {
		t.Error("a second volume's quota larger than the file system is accepted")
	}
	if got := c.Capacity().Quota; got != b.quota {
		t.Errorf("the quota is %d", got)
	}
	if len(b.caches.byKey) != 1 {
		t.Errorf("%d caches", len(b.caches.byKey))
	}
}

// TestRotatedSecret reads on with a secret that came later, through the cache that there is, and with the one before
// where the source refuses the new one.
func TestRotatedSecret(t *testing.T) {
	b, source := newBackend(t)
	var password atomic.Value
	password.Store("one")
	files := http.FileServer(http.Dir(source))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, got, _ := r.BasicAuth(); got != password.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	volume := func(pass string) handover.Volume {
		return handover.Volume{
			Source: server.URL + "/", Revalidate: time.Nanosecond,
			Secrets: map[string]string{"user": "me", "pass": pass},
		}
	}
	c := b.mustOpen(t, volume("one"))
	defer c.Close()
	same := b.mustOpen(t, volume("one"))
	defer same.Close()
	renewer, ok := c.(agent.Renewer)
	if !ok {
		t.Fatalf("%T takes no secrets", c)
	}
	looked := func(c cacheclient.Client) error {
		_, err := c.Stat(t.Context(), "f")
		return err
	}
	if err := looked(c); err != nil {
		t.Fatal(err)
	}
	if err := renewer.Renew(t.Context(), volume("wrong")); err == nil {
		t.Error("a wrong secret is taken")
	}
	if err := looked(c); err != nil {
		t.Errorf("after a wrong secret: %v", err)
	}
	password.Store("two")
	if err := looked(c); err != nil {
		t.Errorf("what is known is not there any more: %v", err)
	}
	if _, err := c.Stat(t.Context(), "sub"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("the old secret is still good: %v", err)
	}
	if err := renewer.Renew(t.Context(), volume("two")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(looked(c), looked(same)); err != nil {
		t.Errorf("with the new secret: %v", err)
	}
	// Another volume that comes with the new secret has a cache of its own.
	other := b.mustOpen(t, volume("two"))
	defer other.Close()
	if cacheOf(t, other) == cacheOf(t, c) {
		t.Error("a volume of another secret reads what those of the old one brought")
	}
}
