package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/backoff"
	"millrace.io/millrace/cacheclient/ufs"
)

const (
	// maxKnown bounds the paths of which a cache has attributes in memory, and maxKnownBytes what they take, of all
	// caches that share a Budget.
	maxKnown      = 128 << 10
	maxKnownBytes = 40 << 20
	// recordBytes is about what a record takes beside its path and version.
	recordBytes = 240
)

// metadata is what is known of paths, the most recently used of it.
type metadata struct {
	// ttl and nameTTL are durations; Retune changes them.
	ttl, nameTTL atomic.Int64

	// mu guards the rest.
	mu           sync.Mutex
	lru          *simplelru.LRU[string, record]
	files, bytes int64
	part         part
	// closed says that nothing is remembered any more.
	closed bool
}

// record is what the source said of a path, and when.
type record struct {
	info cacheclient.Info
	// missing says that nothing was there.
	missing bool
	at      time.Time
	// inherited says that an earlier process heard it.
	inherited bool
}

func newMetadata(ttl, nameTTL time.Duration, most *bound) (*metadata, error) {
	m := &metadata{part: part{of: most}}
	m.ttl.Store(int64(ttl))
	m.nameTTL.Store(int64(nameTTL))
	var err error
	m.lru, err = simplelru.NewLRU(maxKnown, func(path string, r record) { m.account(path, r, -1) })
	return m, err
}

// account adds a record to the sums or takes it off; mu is held.
func (m *metadata) account(path string, r record, sign int64) {
	m.part.add(sign * int64(recordBytes+len(path)+len(r.info.Version)))
	if !r.missing && !r.info.Dir {
		m.files += sign
		m.bytes += sign * max(r.info.Size, 0)
	}
}

func (m *metadata) get(path string) (record, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lru.Get(path)
}

func (m *metadata) put(path string, r record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.lru.Remove(path)
	m.lru.Add(path, r)
	m.account(path, r, 1)
	for m.part.tooMuch() && m.lru.Len() > 1 {
		m.lru.RemoveOldest()
	}
}

// refresh puts a record unless a newer one of a file that is there is known, and returns the one that stands.
func (m *metadata) refresh(path string, r record) record {
	if old, ok := m.get(path); ok && !old.missing && old.at.After(r.at) {
		return old
	}
	m.put(path, r)
	return r
}

func (m *metadata) remove(path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lru.Remove(path)
}

func (m *metadata) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.lru.Purge()
}

func (m *metadata) known() (files, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.files, m.bytes
}

// lifetime is how long a record may be believed: a tenth of the age that the file had when it
// was looked at, at most ttl. What changed a moment ago is likely to change again.
func lifetime(r record, ttl time.Duration) time.Duration {
	if r.missing || r.info.Dir || r.info.ModTime.IsZero() {
		return ttl
	}
	return min(max(r.at.Sub(r.info.ModTime)/10, 0), ttl)
}

// fresh reports whether a record is good enough to open the file by.
func (m *metadata) fresh(r record) bool {
	return time.Since(r.at) < lifetime(r, time.Duration(m.ttl.Load()))
}

// good reports whether a record is good enough to list and describe the file by.
func (m *metadata) good(r record) bool {
	if r.missing {
		return m.fresh(r)
	}
	return time.Since(r.at) < time.Duration(m.nameTTL.Load())
}

// Stat implements cacheclient.Client.
func (c *Cache) Stat(ctx context.Context, path string) (cacheclient.Info, error) {
	if path == "" {
		return cacheclient.Identify(cacheclient.Info{Dir: true}), nil
	}
	if c.ctx.Err() != nil {
		return cacheclient.Info{}, fmt.Errorf("stat %q: %w", path, cacheclient.ErrClosed)
	}
	r, known := c.remember(path)
	if !known || !c.meta.good(r) {
		var err error
		if r, err = c.ask(ctx, path, r, known); err != nil {
			return cacheclient.Info{}, err
		}
	}
	if r.missing {
		return cacheclient.Info{}, fmt.Errorf("stat %q: %w", path, fs.ErrNotExist)
	}
	return r.info, nil
}

// ask asks the source about a path, once for all callers. When it tells
// nothing, what was known before stands; for a caller that knows something already that is so after a while, and the
// question goes on without it.
func (c *Cache) ask(ctx context.Context, path string, old record, known bool) (record, error) {
	question := func() (record, error) { return c.lookup(path) }
	if known {
		if r, answered, err := orKnown(ctx, c, statKey(path), question); answered {
			return r, err
		}
		return old, nil
	}
	r, err := once(ctx, c, statKey(path), question)
	if tellsNothing(err) {
		info, ok, waitErr := c.cachedInfo(ctx, path)
		if waitErr != nil {
			return record{}, fmt.Errorf("stat %q: %w", path, waitErr)
		}
		if ok {
			return record{info: info, at: time.Now()}, nil
		}
	}
	return r, err
}

// statKey names the question of what a path is.
func statKey(path string) string { return "stat " + path }

// once calls f for all that ask the question at the same time, each of which hears what it hears. f goes on when the
// context of one of them ends.
func once[T any](ctx context.Context, c *Cache, key string, f func() (T, error)) (T, error) {
	var none T
	defer c.listeners.add(ctx, key)()
	ch := c.flight.DoChan(key, func() (any, error) {
		if !c.begin() {
			return none, cacheclient.ErrClosed
		}
		defer c.work.Done()
		return f()
	})
	select {
	case <-ctx.Done():
		return none, fmt.Errorf("wait for the source: %w", ctx.Err())
	case res := <-ch:
		if v, ok := res.Val.(T); ok && res.Err == nil {
			return v, nil
		}
		return none, res.Err
	}
}

// lookup asks the source about a path and remembers the answer.
func (c *Cache) lookup(path string) (record, error) {
	var info cacheclient.Info
	err := c.persistently(statKey(path), func(ctx context.Context, _ func()) (err error) {
		info, err = c.store.Stat(ctx, path)
		return err
	})
	r := record{info: cacheclient.Identify(info), at: time.Now()}
	if errors.Is(err, fs.ErrNotExist) {
		r, err = record{missing: true, at: time.Now()}, nil
	}
	if err != nil {
		return record{}, err
	}
	c.meta.put(path, r)
	if r.missing || r.info.Dir {
		c.unconfirm(path, 0)
	} else {
		c.confirm(r.info)
		c.restore(r)
	}
	return r, nil
}

// firstPauses are those between the attempts at a request of the source, before the first.
var firstPauses = backoff.Pauses{First: 20 * time.Millisecond, Longest: time.Second, Factor: 2}

// persistently makes attempts at a metadata request until one succeeds, fails for good, or nothing has come for as long
// as the client waits. try calls alive when something comes, or cacheclient.Heard with its context. A pause that the
// source asks for is kept where it ends within that time; else the request fails at once.
func (c *Cache) persistently(what string, try func(ctx context.Context, alive func()) error) error {
	patience, retry := c.patience(what)
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	silence := time.AfterFunc(patience, func() { cancel(silentError(patience)) })
	defer silence.Stop()
	giveUp := time.Now().Add(patience)
	// answered says that the source refused an attempt. The last one may have too little time for that.
	answered := false
	for pauses := firstPauses; ; {
		heard := false
		c.count.sourceRequests.Add(1)
		var mu sync.Mutex // guards heard and giveUp while try runs
		alive := func() {
			mu.Lock()
			defer mu.Unlock()
			heard, giveUp = true, time.Now().Add(patience)
			c.listeners.heard(what)
			silence.Reset(patience)
		}
		err := try(cacheclient.OnHeard(ctx, alive), alive)
		if err == nil {
			c.served(what)
			return nil
		}
		again, after := ufs.Retryable(err)
		if !again && ctx.Err() == nil {
			c.settled(err)
			return err
		}
		answered = answered || isAnswer(err)
		c.count.sourceErrors.Add(1)
		wait := max(pauses.Next(), after)
		if retry && time.Now().Add(wait).Before(giveUp) && sleep(ctx, wait) {
			continue
		}
		if c.ctx.Err() != nil {
			return cacheclient.ErrClosed
		}
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			err = context.Cause(ctx)
		}
		c.failed(what, err, heard || answered)
		return fmt.Errorf("%s: %w: %w", what, cacheclient.ErrUnavailable, err)
	}
}

// silentError says that the source told nothing for as long as a request waits.
type silentError time.Duration

func (e silentError) Error() string {
	return "the source told nothing for " + time.Duration(e).String()
}

// stands asks the source anew whether it has the version, and returns ErrStale where it has another, or none.
func (c *Cache) stands(ctx context.Context, info cacheclient.Info) error {
	r, err := once(ctx, c, statKey(info.Path), func() (record, error) { return c.lookup(info.Path) })
	switch {
	case err != nil:
		return err
	case r.missing || r.info.ID != info.ID && !c.agree(info, r.info):
		return fmt.Errorf("%q at %s: %w", info.Path, c.store, cacheclient.ErrStale)
	}
	return nil
}

// Known is what the source told last of a path, however long ago; false where it told nothing, or that nothing is
// there.
func (c *Cache) Known(path string) (cacheclient.Info, bool) {
	r, ok := c.meta.get(path)
	return r.info, ok && !r.missing
}

// Revalidate returns ErrStale if the source is known to have another version than info, as Open does, and
// fs.ErrNotExist if it has none.
func (c *Cache) Revalidate(ctx context.Context, info cacheclient.Info) error {
	if c.ctx.Err() != nil {
		return fmt.Errorf("open %q: %w", info.Path, cacheclient.ErrClosed)
	}
	return c.checkVersion(ctx, info)
}

// Forget has the next question for a path, or for its directory, ask the source: the path has changed.
func (c *Cache) Forget(path string) {
	c.meta.remove(path)
	c.unconfirm(path, 0)
	c.outdated(path)
}

// checkVersion makes sure that the source still has the version, as far as it can be known: a
// source that does not answer changes nothing.
func (c *Cache) checkVersion(ctx context.Context, info cacheclient.Info) error {
	r, known := c.remember(info.Path)
	if !known || !c.meta.fresh(r) {
		var err error
		r, err = c.ask(ctx, info.Path, record{info: info}, true)
		if err != nil {
			return err
		}
	}
	return c.compare(ctx, info, r)
}

// compare returns ErrStale, or fs.ErrNotExist, where a record tells another version than info.
func (c *Cache) compare(ctx context.Context, info cacheclient.Info, r record) error {
	switch {
	case r.missing:
		return fmt.Errorf("open %q: %w", info.Path, fs.ErrNotExist)
	case r.info.ID != info.ID && !c.agree(info, r.info):
		c.arbitrate(ctx, info, r.info)
		if c.agree(info, r.info) {
			return nil
		}
		c.count.changed.Add(1)
		c.log.Info("a file changed at the source", "file", info.Path)
		c.outdated(info.Path)
		return fmt.Errorf("open %q: %w", info.Path, cacheclient.ErrStale)
	}
	return nil
}

// agree reports whether the source takes two descriptions of a file for one version.
func (c *Cache) agree(was, now cacheclient.Info) bool {
	a, can := c.store.(ufs.Agreer)
	return can && !was.Dir && !now.Dir && a.Same(was, now)
}

// arbitrate has the source find out whether two descriptions of a file are of servers behind one name; then the next
// question tells what they agree in.
func (c *Cache) arbitrate(ctx context.Context, was, now cacheclient.Info) {
	s, can := c.store.(ufs.Settler)
	if !can || was.Dir || now.Dir || was.Size != now.Size {
		return
	}
	ctx, cancel := cacheclient.Patient(ctx, c.cfg.Timeout)
	defer cancel()
	s.Settle(ctx, was)
	c.meta.remove(was.Path)
}
