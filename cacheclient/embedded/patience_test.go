package embedded_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
)

// mute is a store that does not answer questions about names while it is shut.
type mute struct {
	ufs.Store
	// mu guards the rest.
	mu   sync.Mutex
	shut chan struct{}
	// late is how long each answer takes.
	late time.Duration
}

// shutUp has questions wait until the function that it returns is called.
func (m *mute) shutUp() (speak func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	shut := make(chan struct{})
	m.shut = shut
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.shut = nil
		close(shut)
	})
}

func (m *mute) wait(ctx context.Context) error {
	m.mu.Lock()
	shut, late := m.shut, m.late
	m.mu.Unlock()
	if shut == nil {
		time.Sleep(late)
		return nil
	}
	select {
	case <-shut:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *mute) Stat(ctx context.Context, path string) (cacheclient.Info, error) {
	if err := m.wait(ctx); err != nil {
		return cacheclient.Info{}, err
	}
	return m.Store.Stat(ctx, path)
}

func (m *mute) List(ctx context.Context, dir string, fn func(cacheclient.Info) error) error {
	if err := m.wait(ctx); err != nil {
		return err
	}
	return m.Store.List(ctx, dir, fn)
}

// dripping is a store that reads a file to describe it, for longer than anybody waits for a silent one.
type dripping struct {
	ufs.Store
	every time.Duration
}

func (d *dripping) Stat(ctx context.Context, path string) (cacheclient.Info, error) {
	for range 10 {
		select {
		case <-time.After(d.every):
			cacheclient.Heard(ctx)
		case <-ctx.Done():
			return cacheclient.Info{}, ctx.Err()
		}
	}
	return d.Store.Stat(ctx, path)
}

// TestADescriptionThatTakesLong has a source take long to describe a file, while something of it comes: only silence
// ends that, for the source's question as for each caller that waits for its answer.
func TestADescriptionThatTakesLong(t *testing.T) {
	under := newFakeStore()
	under.put("file", []byte("content"), "1")
	timeout := pace.Limit(200 * time.Millisecond)
	c, err := embedded.New(&dripping{under, timeout / 5}, embedded.Config{Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	var callers sync.WaitGroup
	for range 3 {
		callers.Go(func() {
			ctx, cancel := cacheclient.Patient(t.Context(), timeout)
			defer cancel()
			if info, err := c.Stat(ctx, "file"); err != nil || info.Size != 7 {
				t.Errorf("%+v, %v", info, err)
			}
		})
	}
	callers.Wait()
}

// TestAMuteSource has a source fall silent, as one does whose machine has lost power. A caller that knows a file or a
// directory waits a moment once, the next ones hardly, all long before the source is given up; and when it speaks again
// its word counts.
func TestAMuteSource(t *testing.T) {
	pace.Long(t)
	dir := t.TempDir()
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	under, err := ufs.Open(t.Context(), dir, ufs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	store := &mute{Store: under}
	// Nothing is believed without asking.
	c, err := embedded.New(store, embedded.Config{TTL: time.Nanosecond, NameTTL: time.Nanosecond, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	info, err := c.Stat(t.Context(), "file")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.List(t.Context(), "", cacheclient.Cursor{}, 10, false); err != nil {
		t.Fatal(err)
	}
	known := map[string]cacheclient.Info{}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		if known[name], err = c.Stat(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	speak := store.shutUp()
	defer speak()
	write("new and longer")
	for i, ask := range []func() error{
		func() error { return c.Revalidate(t.Context(), info) },
		func() error { return c.Revalidate(t.Context(), info) },
		func() error { _, err := c.Stat(t.Context(), "file"); return err },
		func() error { _, err := c.List(t.Context(), "", cacheclient.Cursor{}, 10, false); return err },
	} {
		most := time.Second
		if i == 0 {
			most = 6 * time.Second
		}
		begun := time.Now()
		if err := ask(); err != nil {
			t.Errorf("question %d: %v", i, err)
		}
		if took := time.Since(begun); took > pace.Limit(most) {
			t.Errorf("question %d took %v, want at most %v", i, took, most)
		}
	}
	// It takes longer for each answer than a caller waits that has waited in vain.
	store.mu.Lock()
	store.late = 100 * time.Millisecond
	store.mu.Unlock()
	speak()
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		now, err := c.Stat(t.Context(), "file")
		if err != nil {
			t.Fatal(err)
		}
		if now.Size != info.Size {
			break
		}
		if time.Since(begun) > pace.Limit(5*time.Second) {
			t.Fatal("what the source says now is not seen")
		}
	}
	// Once it has answered it is waited for again, whatever is asked for next.
	for name, info := range known {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("new and longer"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.Revalidate(t.Context(), info); !errors.Is(err, cacheclient.ErrStale) {
			t.Errorf("%s has changed at the source that answers again: %v", name, err)
		}
	}
}
