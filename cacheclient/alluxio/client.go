package alluxio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
)

// Config says which cluster to read through, and how. The zero value of each field but Address means its default.
type Config struct {
	// Address is what is shown: the masters, and the directory in Alluxio's name space.
	Address rpc.Address
	// Security is who we are to the servers.
	Security rpc.Security
	// Sources are the under stores by which to read what Alluxio does not have, or all when it does not answer. By default
	// they are taken from the masters' mount table, as far as this machine can read them; SourceOptions say how.
	Sources       []Source
	SourceOptions ufs.Options
	// NoLocalSources refuses sources that are directories of this machine, whoever names them.
	NoLocalSources bool
	// MayBeEmpty says that the path may have nothing in it, and is no less what it should be for that.
	MayBeEmpty bool
	// WorkersRead has workers read every under store, and this process none.
	WorkersRead bool
	// NoShortCircuit has blocks come by gRPC from workers of this machine as well.
	NoShortCircuit bool
	// LocalHosts are the names by which workers of this machine go. By default those are the machine's
	// name and its addresses.
	LocalHosts []string
	// PassiveCache has the local worker copy the blocks that are read from others.
	PassiveCache bool
	// TTL is the longest time that listings and the absence of names are believed, and files opened, without asking
	// the masters again, and how old their own knowledge of the source may be: 1 minute by default. Negative: always ask.
	TTL time.Duration
	// NameTTL is how long the attributes that Stat and List tell are believed, TTL by default.
	NameTTL time.Duration
	// Timeout is how long nothing may come before a read or a lookup fails, 10 seconds by default.
	Timeout time.Duration
	// Connections is how many requests to the source run at once, 16 by default.
	Connections int
	// Budget is the memory to bring bytes in through, shared with other clients of the process; one of its own, of
	// 32 MiB, by default.
	Budget *embedded.Budget
	// Deferred has New ask nothing: whether the cluster answers turns out with the first request.
	Deferred bool
	// Log receives what an operator should know; nothing by default.
	Log *slog.Logger
}

func withDefaults(c Config) Config {
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
	if c.Budget == nil {
		c.Budget = embedded.NewBudget(32 << 20)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.SourceOptions.ResponseTimeout == 0 {
		c.SourceOptions.ResponseTimeout = c.Timeout
	}
	if c.SourceOptions.MaxConns == 0 {
		c.SourceOptions.MaxConns = c.Connections
	}
	return c
}

// Client is a cacheclient.Client over an Alluxio cluster.
type Client struct {
	cfg     Config
	log     *slog.Logger
	cluster *rpc.Cluster
	// names remembers what the masters tell; direct reads the sources without Alluxio.
	store   *masterStore
	names   *embedded.Cache
	sources *sources
	direct  *embedded.Cache
	local   *localWorkers
	held    *held
	places  *places
	// slots are the requests to the source for fills that may run at once, and bringing what may be on its way into
	// workers at once.
	slots, bringing *semaphore.Weighted
	// flight has one goroutine do what several want at once.
	flight singleflight.Group
	// asked are the blocks that a worker was asked to cache lately, refused those that a worker had no room for, brought
	// those that this process brought into one.
	asked, refused, brought recently
	// gone are the blocks that a worker dropped lately, bad those of which one has something else.
	gone, bad recently
	// silent are the sources that did not answer lately, by sources.key.
	silent recently
	count  counters

	// life ends with Close; work counts the goroutines that end with it.
	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	// mu guards the rest.
	mu sync.Mutex
	// closing says that Close was called, closed that no work begins any more.
	closing, closed bool
	// fills are the blocks on their way from the source into a worker, by id.
	fills map[int64]*fill
	// pushes are those on their way to a worker of another machine.
	pushes map[int64]*push
	// streams are the reads from workers that go on, by version.
	streams map[layout]*streams
	// open counts the handles by path: what is open is not freed.
	open map[string]int
	// mountedAt are the paths of mounts below the root, nil before they are known.
	mountedAt map[string]bool
	// capacity is what the masters told last.
	capacity cacheclient.Capacity
}

// counters are sums since the client began.
type counters struct {
	hits, misses, bytesLocal, bytesRemote, bytesSource, sourceRequests, sourceErrors, discarded atomic.Int64
}

var _ cacheclient.Client = (*Client)(nil)

// New connects to the cluster and, unless that is deferred, proves that it answers and that the directory is there. An
// error is one sentence for the user.
func New(ctx context.Context, cfg Config) (*Client, error) {
	cfg = withDefaults(cfg)
	cluster, err := rpc.Connect(rpc.Config{Masters: cfg.Address.Masters, Security: cfg.Security, Log: cfg.Log})
	if err != nil {
		return nil, fmt.Errorf("source %q: %w", cfg.Address, err)
	}
	c := &Client{
		cfg: cfg, log: cfg.Log, cluster: cluster,
		store: &masterStore{
			cluster: cluster, addr: cfg.Address, maxAge: max(cfg.TTL, 0),
			suspects: make(map[string]struct{}),
		},
		sources: &sources{
			addr: cfg.Address, given: cfg.Sources, options: cfg.SourceOptions, noLocal: cfg.NoLocalSources,
			log:     cfg.Log,
			refused: make(map[string]time.Time),
		},
		slots: semaphore.NewWeighted(int64(cfg.Connections)), bringing: semaphore.NewWeighted(bringing),
		fills: make(map[int64]*fill), pushes: make(map[int64]*push), streams: make(map[layout]*streams),
		open: make(map[string]int),
	}
	c.store.told = c.notePlaces
	c.life, c.end = context.WithCancel(context.Background())
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// start makes the parts of the client, and its goroutines.
func (c *Client) start(ctx context.Context) error {
	var err error
	if c.held, err = newHeld(); err != nil {
		return err
	}
	if c.places, err = newPlaces(); err != nil {
		return err
	}
	c.local = newLocalWorkers(c.cfg.LocalHosts, !c.cfg.NoShortCircuit)
	cache := embedded.Config{
		TTL: c.cfg.TTL, NameTTL: c.cfg.NameTTL, Timeout: c.cfg.Timeout,
		Connections: c.cfg.Connections, Budget: c.cfg.Budget, Log: c.log,
	}
	if c.names, err = embedded.New(c.store, cache); err != nil {
		return err
	}
	// What the source says of a version is compared with what Alluxio knows, so it must not be old.
	cache.NameTTL = cache.TTL
	if c.direct, err = embedded.New(c.sources, cache); err != nil {
		return err
	}
	if err := c.sources.openGiven(ctx); err != nil {
		return err
	}
	if !c.cfg.Deferred {
		if err := c.prove(ctx); err != nil {
			return fmt.Errorf("source %q: %w", c.cfg.Address, err)
		}
	}
	c.work.Go(func() { c.held.run(c.life) })
	c.work.Go(c.follow)
	c.work.Go(c.report)
	return nil
}

// prove asks for the version, the directory and the mounts.
func (c *Client) prove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	// Side by side, because who mounts waits; what the version says counts first.
	var version, root error
	var asking sync.WaitGroup
	asking.Go(func() { version = c.cluster.Check(ctx) })
	asking.Go(func() {
		f, err := c.store.status(ctx, "")
		if root = err; err == nil && !f.GetFolder() {
			root = fmt.Errorf("%s is a file: %w", c.cfg.Address.Path, cacheclient.ErrNotDir)
		}
	})
	asking.Go(func() { c.look(ctx) })
	asking.Wait()
	if version != nil {
		return version
	}
	return root
}

const (
	// mountsEvery is how often the mount table is asked for, which costs the master little: a mount that is added shows
	// soon. At every looksEvery-th time it is the workers and their use, too. followPatience bounds it.
	mountsEvery    = 3 * time.Second
	looksEvery     = 3
	followPatience = 5 * time.Second
)

// follow keeps what is known of the cluster up to date, until Close.
func (c *Client) follow() {
	if c.cfg.Deferred {
		c.look(c.life)
	}
	for n := 1; sleep(c.life, mountsEvery); n++ {
		if n%looksEvery == 0 {
			c.look(c.life)
			continue
		}
		ctx, cancel := context.WithTimeout(c.life, followPatience)
		c.lookAtMounts(ctx)
		cancel()
	}
}

// look asks for the mount table, the workers and their use. While nobody answers, what was known stands.
func (c *Client) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, followPatience)
	defer cancel()
	var asking sync.WaitGroup
	asking.Go(func() { c.lookAtMounts(ctx) })
	asking.Go(func() { c.measure(ctx) })
	asking.Go(func() {
		if workers, err := c.cluster.Live(ctx); err == nil {
			c.greet(c.local.follow(workers))
		}
	})
	asking.Wait()
}

// MayBeEmpty reports whether a path with nothing in it is as it should be.
func (c *Client) MayBeEmpty() bool { return c.cfg.MayBeEmpty }

// lookAtMounts asks for the mount table.
func (c *Client) lookAtMounts(ctx context.Context) {
	table, err := c.cluster.MountTable(ctx)
	if err != nil {
		return
	}
	c.forgetAround(table)
	if !c.cfg.WorkersRead {
		c.followMounts(ctx, table)
	}
}

// forgetAround forgets what is known of the names at which something has been mounted or unmounted since the last time,
// and of those on the way to them.
func (c *Client) forgetAround(table map[string]*wire.MountPointInfo) {
	now := make(map[string]bool, len(table))
	for at := range table {
		if isPath(at) && within(at, c.cfg.Address.Path) {
			now[strings.Trim(at[len(c.cfg.Address.Path):], "/")] = true
		}
	}
	c.mu.Lock()
	was := c.mountedAt
	c.mountedAt = now
	c.mu.Unlock()
	if was == nil {
		return
	}
	for _, sets := range [][2]map[string]bool{{was, now}, {now, was}} {
		for at := range sets[0] {
			for p := at; !sets[1][at] && p != "." && p != ""; p = path.Dir(p) {
				c.names.Forget(p)
				c.direct.Forget(p)
			}
		}
	}
}

// followMounts has the sources follow the mount table. It waits for them as long as the context lasts: a directory of
// this machine may be on a file system that hangs.
func (c *Client) followMounts(ctx context.Context, table map[string]*wire.MountPointInfo) {
	if !c.begin() {
		return
	}
	done := make(chan struct{})
	go func() {
		defer c.work.Done()
		defer close(done)
		c.sources.follow(ctx, table)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// greetPause is how long that waits for who mounts, and looks at the first name.
const greetPause = 100 * time.Millisecond

// greet connects to workers in the background: whoever opens the first file finds that done.
func (c *Client) greet(workers []*rpc.Worker) {
	for _, w := range workers {
		if !c.begin() {
			return
		}
		go func() {
			defer c.work.Done()
			if !sleep(c.life, greetPause) {
				return
			}
			ctx, cancel := context.WithTimeout(c.life, followPatience)
			defer cancel()
			if err := w.Greet(ctx); err != nil {
				c.log.Debug("a worker of this machine does not answer yet", "worker", w.Addr(), "error", err)
			}
		}()
	}
}

// Close implements cacheclient.Client. What hangs in a source after workPatience ends when that lets it.
func (c *Client) Close() error {
	if !c.startClosing() {
		return nil
	}
	c.settle()
	c.noMore()
	c.end()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.work.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(workPatience):
		c.log.Warn("the source hangs; its requests are left behind", "source", c.cfg.Address.String())
	}
	var err error
	for _, cache := range []*embedded.Cache{c.names, c.direct} {
		if cache != nil {
			err = errors.Join(err, cache.Close())
		}
	}
	c.cluster.Release()
	return err
}

// startClosing reports whether the client is not being closed yet, and notes that it is.
func (c *Client) startClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.closing
	c.closing = true
	return first
}

// noMore has no work begin any more.
func (c *Client) noMore() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// workPatience is how long Close waits for what else goes on.
const workPatience = 1500 * time.Millisecond

// closePatience is how long Close waits for blocks that are nearly there: what was read from a source is worth keeping.
const closePatience = time.Second

// settle waits for the blocks that are on their way, for a while.
func (c *Client) settle() {
	patience := time.NewTimer(closePatience)
	defer patience.Stop()
	for _, ended := range c.onTheirWay() {
		select {
		case <-ended:
		case <-patience.C:
			return
		}
	}
}

// onTheirWay are the ends of the fills and pushes under way.
func (c *Client) onTheirWay() (ends []<-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, fl := range c.fills {
		ends = append(ends, fl.ended)
	}
	for _, p := range c.pushes {
		ends = append(ends, p.ended)
	}
	return ends
}

// begin counts a goroutine that Close waits for; false when it is too late to start one.
func (c *Client) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.work.Add(1)
	return true
}

// Known is what the masters told last of a path, however long ago.
func (c *Client) Known(path string) (cacheclient.Info, bool) { return c.names.Known(path) }

// Stat implements cacheclient.Client. While no master answers, what was known stands, and the rest comes from the
// source.
func (c *Client) Stat(ctx context.Context, path string) (cacheclient.Info, error) {
	info, err := c.names.Stat(ctx, path)
	if errors.Is(err, cacheclient.ErrUnavailable) && c.sourceFor(path) {
		if found, sourceErr := c.direct.Stat(ctx, path); !errors.Is(sourceErr, cacheclient.ErrUnavailable) {
			return found, sourceErr
		}
	}
	return info, err
}

// List implements cacheclient.Client. A place that one list does not know is found in another by its name.
func (c *Client) List(
	ctx context.Context, dir string, from cacheclient.Cursor, limit int, attrs bool,
) (cacheclient.Page, error) {
	page, err := c.names.List(ctx, dir, from, limit, attrs)
	if errors.Is(err, cacheclient.ErrUnavailable) && c.sourceFor(dir) {
		if found, sourceErr := c.direct.List(ctx, dir, from, limit, attrs); !errors.Is(sourceErr,
			cacheclient.ErrUnavailable) {
			return found, sourceErr
		}
	}
	return page, err
}

// sourceFor reports whether this machine can read the source of a path.
func (c *Client) sourceFor(path string) bool {
	_, _, err := c.sources.find(path)
	return err == nil || c.sources.above(path)
}

// Counters implements cacheclient.Client.
func (c *Client) Counters() cacheclient.Counters {
	known, direct, n := c.names.Counters(), c.direct.Counters(), &c.count
	return cacheclient.Counters{
		FilesKnown: known.FilesKnown, BytesKnown: known.BytesKnown,
		Hits: n.hits.Load(), Misses: n.misses.Load(),
		BytesCache:     n.bytesLocal.Load() + n.bytesRemote.Load(),
		BytesSource:    n.bytesSource.Load() + direct.BytesSource,
		SourceRequests: n.sourceRequests.Load() + direct.SourceRequests,
		SourceErrors:   n.sourceErrors.Load() + direct.SourceErrors,
		Changed:        known.Changed, Discarded: n.discarded.Load(),
		SourceDown: known.SourceDown, SourceDownSince: known.SourceDownSince, LastSourceError: known.LastSourceError,
		SourceNotes: direct.SourceNotes,
	}
}

// sleep waits unless the context ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
