package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/ufs"
)

// Config says how to cache. The zero value of each field but Levels means its default.
type Config struct {
	// Levels are the tiers, fastest first. None means that nothing is kept but Staging.
	Levels []LevelConfig
	// Scope keeps what is cached of a source apart from what others, that may not see the same of it, have cached of
	// it; "" by default.
	Scope string
	// Beside has a source that another process serves from the same tier be cached a second time, beside that. Without,
	// New fails.
	Beside bool
	// TTL is the longest time that listings and the absence of names are believed, and files
	// opened, without asking the source again, 1 minute by default. Less for files that
	// changed lately: a tenth of their age, the heuristic freshness of RFC 9111, section 4.2.2.
	// Negative: always ask.
	TTL time.Duration
	// NameTTL is how long the attributes that Stat and List tell are believed, TTL by default. It may
	// be longer: what is behind a name is asked about when it is opened.
	NameTTL time.Duration
	// Timeout is how long a source may bring nothing before a read or a lookup fails, 10 seconds
	// by default.
	Timeout time.Duration
	// Connections is how many requests to the source run at once, 16 by default.
	Connections int
	// Budget is the memory to bring bytes in through, shared with other caches of the process. By default the cache
	// has one of its own, of StagingBytes, 32 MiB by default.
	Budget       *Budget
	StagingBytes int64
	// Log receives what an operator should know; nothing by default.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.TTL == 0 {
		c.TTL = time.Minute
	}
	if c.NameTTL == 0 {
		c.NameTTL = c.TTL
	}
	if c.Timeout <= 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Connections <= 0 {
		c.Connections = 16
	}
	if c.StagingBytes <= 0 {
		c.StagingBytes = 32 << 20
	}
	if c.Budget == nil {
		c.Budget = NewBudget(c.StagingBytes)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Cache is a cacheclient.Client over an under store.
type Cache struct {
	store ufs.Store
	cfg   Config
	log   *slog.Logger
	// ctx ends with Close; work counts the goroutines that end with it.
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
	// slots are the requests for content that may run at once; ahead are those of them for bytes that
	// no reader waits for yet, fewer, so that a reader finds a place.
	slots     *slots
	ahead     *semaphore.Weighted
	staging   *staging
	paused    pausedPasses
	meta      *metadata
	lists     *listings
	listeners listeners
	walks     *walks
	flight    singleflight.Group
	count     counters
	health    health
	// questions are those under way about what is known already.
	questions atomic.Int64
	// evictor wakes the background eviction.
	evictor chan struct{}

	// unopened says that the last cached file could not be opened.
	unopened atomic.Bool

	// gate guards closed, after which no work begins. It is taken last.
	gate   sync.Mutex
	closed bool

	// levels are the tiers; which they are does not change after New.
	levels []*level
	// left is what an earlier process left.
	left *adoption

	// mu guards the rest, and the accounts of the levels. Nothing is read, written or removed with it held.
	mu sync.Mutex
	// entries are the versions that are in use, and those that were a moment ago; shelf has the others.
	entries map[uint64]*entry
	shelf   shelf
	// latest has the identity of the latest version of each path, by its pathKey.
	latest map[uint64]uint64
	// claims are to cached files that are looked for, moved or removed just now: closed when that ends.
	claims map[uint64]chan struct{}
	// idle are entries without references, whose files are open, the one used longest ago first.
	idle queue
	// shut says that the tiers may be another's now: no file is removed any more.
	shut bool
	// elsewhere is how many bytes of listings are in files outside of the levels.
	elsewhere int64
}

// begin counts a goroutine that Close waits for; false when it is too late to start one.
func (c *Cache) begin() bool {
	c.gate.Lock()
	defer c.gate.Unlock()
	if c.closed {
		return false
	}
	c.work.Add(1)
	return true
}

// counters are the atomic twins of cacheclient.Counters.
type counters struct {
	hits, misses, bytesCache, bytesSource, sourceRequests, sourceErrors atomic.Int64
	evictedFiles, evictedBytes, changed, discarded                      atomic.Int64
}

var _ cacheclient.Client = (*Cache)(nil)

// New opens the tiers; what an earlier process left in them is served at once and counted in the background. It fails
// with one sentence when a level is not usable as configured; the store is closed by Close, or by New when it fails.
func New(store ufs.Store, cfg Config) (*Cache, error) {
	cfg = cfg.withDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	c := &Cache{
		store: store, cfg: cfg, log: cfg.Log, ctx: ctx, cancel: cancel,
		slots:   newSlots(cfg.Connections, cfg.Timeout),
		ahead:   semaphore.NewWeighted(int64(cfg.Connections) * 3 / 4),
		staging: &staging{b: cfg.Budget},
		paused:  pausedPasses{most: max(1, cfg.Connections/4)},
		evictor: make(chan struct{}, 1),
		entries: make(map[uint64]*entry), latest: make(map[uint64]uint64), claims: make(map[uint64]chan struct{}),
		left: newAdoption(),
	}
	var err error
	if c.meta, err = newMetadata(c.cfg.TTL, c.cfg.NameTTL, &cfg.Budget.names); err != nil {
		return nil, err
	}
	if c.walks, err = newWalks(); err != nil {
		cancel()
		return nil, err
	}
	if c.lists, err = newListings(&cfg.Budget.listed, mostSpilled(cfg.Levels)); err != nil {
		return nil, err
	}
	if err := c.openLevels(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.left.graceEnds = time.Now().Add(resumeGrace)
	if c.begin() {
		go c.adopt()
	}
	if c.begin() {
		go c.evict()
	}
	return c, nil
}

// openLevels opens the tiers of the configuration.
func (c *Cache) openLevels() error {
	for i, lc := range c.cfg.Levels {
		l, err := c.openLevel(i, lc)
		if err != nil {
			return err
		}
		c.levels = append(c.levels, l)
		if l.problem != nil {
			c.log.Warn("a tier cannot be written to; reads go on without it", "tier", l.dir, "error", l.problem)
		}
	}
	return nil
}

const (
	// mostBeside is how many processes may cache one source side by side.
	mostBeside = 16
	// closingTries is how often a tier that is in use is tried for: its process may be closing it.
	closingTries = 8
)

// openLevel opens the source's directory on a tier: its own, or with Beside the first that no other process has.
func (c *Cache) openLevel(i int, cfg LevelConfig) (*level, error) {
	identity := c.store.Identity()
	l, err := openLevel(i, cfg, SourceDir(identity, c.cfg.Scope))
	if !c.cfg.Beside {
		return l, err
	}
	for try := 1; errors.Is(err, errInUse) && try < closingTries; try++ {
		l, err = openLevel(i, cfg, SourceDir(identity, c.cfg.Scope))
	}
	for n := 2; errors.Is(err, errInUse) && n <= mostBeside; n++ {
		l, err = openLevel(i, cfg, SourceDir(identity, fmt.Sprintf("%s\x00%d", c.cfg.Scope, n)))
		if err == nil {
			c.log.Info("another process caches this source on the tier; it is cached a second time", "tier", cfg.Dir)
		}
	}
	return l, err
}

// closePatience is how long Close waits for work that does not heed its end, as a system call on a file
// system that hangs.
const closePatience = 1500 * time.Millisecond

// Close ends all work, waits for it at most 1.5 seconds, and leaves the tiers as they are for the next process.
// What still hangs then in the source ends when that lets it, and touches the tiers no more.
func (c *Cache) Close() error {
	if !c.endWork() {
		return nil
	}
	c.cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.work.Wait()
	}()
	patience := time.NewTimer(closePatience)
	defer patience.Stop()
	quiet := true
	select {
	case <-ended:
	case <-patience.C:
		quiet = false
		c.log.Warn("the source hangs; its requests are left behind", "source", c.store.String())
	}
	c.lists.close()
	for _, e := range c.shutDown() {
		e.detach()
	}
	c.meta.close()
	c.staging.close()
	if quiet {
		c.writeSnapshots()
	}
	var err error
	for _, l := range c.levels {
		err = errors.Join(err, l.close())
	}
	return errors.Join(err, c.store.Close())
}

// endWork lets no more work begin, and reports whether that is news.
func (c *Cache) endWork() bool {
	c.gate.Lock()
	defer c.gate.Unlock()
	again := c.closed
	c.closed = true
	return !again
}

// shutDown leaves stubs of the idle entries, whose files the caller closes. What is released later is only closed.
func (c *Cache) shutDown() []*entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shut = true
	var idle []*entry
	for e := c.idle.oldest(); e != nil; e = c.idle.oldest() {
		idle = append(idle, c.shelve(e))
	}
	return idle
}

// Capacity implements cacheclient.Client.
func (c *Cache) Capacity() cacheclient.Capacity {
	c.mu.Lock()
	defer c.mu.Unlock()
	var sum cacheclient.Capacity
	for _, l := range c.levels {
		used := l.used + l.left
		lv := cacheclient.Level{Where: l.dir, Quota: l.quota, Used: used}
		if l.problem != nil {
			lv.Problem = l.problem.Error()
		}
		sum.Quota += l.quota
		sum.Used += used
		sum.Levels = append(sum.Levels, lv)
	}
	return sum
}

// Counters implements cacheclient.Client.
func (c *Cache) Counters() cacheclient.Counters {
	files, bytes := c.meta.known()
	n := &c.count
	counters := cacheclient.Counters{
		FilesKnown: files, BytesKnown: bytes,
		Hits: n.hits.Load(), Misses: n.misses.Load(),
		BytesCache: n.bytesCache.Load(), BytesSource: n.bytesSource.Load(),
		SourceRequests: n.sourceRequests.Load(), SourceErrors: n.sourceErrors.Load(),
		EvictedFiles: n.evictedFiles.Load(), EvictedBytes: n.evictedBytes.Load(),
		Changed: n.changed.Load(), Discarded: n.discarded.Load(),
	}
	c.health.tell(&counters)
	if noted, ok := c.store.(ufs.Noted); ok {
		counters.SourceNotes = noted.Notes()
	}
	return counters
}

// outdated notes that a listing tells of a path's former version.
func (c *Cache) outdated(file string) {
	dir := path.Dir(file)
	if dir == "." {
		dir = ""
	}
	c.lists.outdate(dir)
}

// changed notes that the source no longer has the entry's version.
func (c *Cache) changed(e *entry) {
	e.mu.Lock()
	first := e.staleAt.IsZero()
	e.staleAt = time.Now()
	e.mu.Unlock()
	if first {
		c.count.changed.Add(1)
		c.log.Info("a file changed at the source", "file", e.info.Path)
	}
	c.meta.remove(e.info.Path)
	c.outdated(e.info.Path)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.latest[e.path] == e.info.ID {
		delete(c.latest, e.path)
	}
}

// restore takes back that a version is gone, where the source has told of it since.
func (c *Cache) restore(r record) {
	if e := c.restored(r); e != nil {
		c.log.Info("the source has a version again that was gone", "file", e.info.Path)
	}
}

// restored is the entry that restore took it back of, nil where there was nothing to take back.
func (c *Cache) restored(r record) *entry {
	e := c.entryOf(r.info.ID)
	if e == nil || !e.stands(r.at) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.latest[e.path] == 0 {
		c.latest[e.path] = e.info.ID
	}
	return e
}

// entryOf is the entry of a version, nil where there is none.
func (c *Cache) entryOf(id uint64) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries[id]
}

// stands takes back that the version is gone, if the source has told so before, and reports whether it did.
func (e *entry) stands(told time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.staleAt.IsZero() || !told.After(e.staleAt) {
		return false
	}
	e.staleAt = time.Time{}
	return true
}
