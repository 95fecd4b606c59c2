package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/cmd/commandline"
	"millrace.io/millrace/fuse"
	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/keeper"
	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/fuse/socket"
)

const (
	// detachPatience is how long readers that hold a detached mount get before the process
	// ends all the same.
	detachPatience = 2 * time.Second
	// forcePatience bounds a forced unmount, in which the session gives its readers time.
	forcePatience = 5 * time.Second
	// closePatience is how long each part of a mount may take to end.
	closePatience = 5 * time.Second
	// usersNamed is how many processes a sentence about a busy mount names.
	usersNamed = 3
)

// errInterrupted is a signal before the mount was made.
var errInterrupted = errors.New("interrupted before the mount was made")

// serve makes the mount that c asks for, calls ready once it answers, and returns when it has
// ended: nil if it was unmounted, by a signal or by anybody. Whatever it made is gone when it
// returns.
func serve(c *mountConfig, k *keeper.Child, log *slog.Logger, ready func()) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	stopWatching := cancelOnSignal(cancel)

	m, err := startMount(ctx, c, k, log)
	if !stopWatching() && err != nil {
		err = errInterrupted
	}
	if err != nil {
		return err
	}
	defer m.close()
	m.leave = false
	if err := m.keepWith(k); err != nil {
		return err
	}
	log.Info("mounted", "source", m.source, "dir", m.dir, "socket", m.socket, "resumed", k.Resumes())
	ready()
	return m.wait(signals)
}

// cancelOnSignal calls cancel at the first signal that would end us, until the function it
// returns is called, which reports whether none came.
func cancelOnSignal(cancel context.CancelFunc) (stop func() bool) {
	early := make(chan os.Signal, 1)
	signal.Notify(early, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	end, ended, quiet := make(chan struct{}), make(chan struct{}), true
	go func() {
		defer close(ended)
		select {
		case <-early:
			quiet = false
			cancel()
		case <-end:
		}
	}()
	return func() bool {
		signal.Stop(early)
		close(end)
		<-ended
		return quiet
	}
}

// served is a mount and everything that this process holds for it.
type served struct {
	dir, source, socket string
	log                 *slog.Logger
	session             *fuse.Session
	// kept says that the keeper has what a successor needs.
	kept atomic.Bool
	// leave has a failure leave the mount to the next process: this one took it over, and is not ready yet.
	leave bool
	ended chan error
	undo  []func()
}

// startMount makes the mount. Each step that succeeds leaves what undoes it.
func startMount(ctx context.Context, c *mountConfig, k *keeper.Child, log *slog.Logger) (m *served, err error) {
	m = &served{log: log, ended: make(chan error, 1)}
	defer func() {
		if err != nil {
			m.close()
			m = nil
		}
	}()
	runtime, err := agent.RuntimeDir()
	if err != nil {
		return m, err
	}
	m.leave = k.Resumes()
	m.kept.Store(k.Resumes())
	if k.Resumes() {
		m.dir, err = mountpoint.Path(c.dir)
	} else {
		var lock *os.File
		m.dir, lock, err = prepareMountpoint(c.dir, log)
		defer func() { _ = lock.Close() }()
		if err == nil {
			err = checkInside(c.source, m.dir)
		}
	}
	if err != nil {
		return m, err
	}
	dir := m.dir
	cache, err := m.openCache(ctx, c, k.Resumes())
	if err != nil {
		return m, err
	}
	registry := agent.OpenRegistry(runtime)
	if m.socket = c.socket; m.socket == "" {
		m.socket = registry.File(dir, ".sock")
	}
	socket, err := socket.Listen(m.socket)
	if err != nil {
		return m, err
	}
	m.undo = append(m.undo, func() { _ = socket.Close() })
	if err := m.mount(ctx, c, k, cache); err != nil {
		return m, err
	}
	return m, m.announce(registry, socket, cache)
}

// openCache opens what is shown. A source whose mount is taken over may be away.
func (m *served) openCache(ctx context.Context, c *mountConfig, resumes bool) (cacheclient.Client, error) {
	var cache cacheclient.Client
	var err error
	if isAlluxio(c.source) {
		cache, err = m.openCluster(ctx, c, resumes)
	} else {
		cache, err = m.openTiers(ctx, c, resumes)
	}
	if err != nil {
		return nil, err
	}
	m.undo = append(m.undo, func() {
		if err := cache.Close(); err != nil {
			m.log.Warn("closing the cache failed", "error", err)
		}
	})
	return cache, nil
}

// openCluster opens an Alluxio cluster, whose workers are the tiers.
func (m *served) openCluster(ctx context.Context, c *mountConfig, resumes bool) (cacheclient.Client, error) {
	m.source = c.source
	return openAlluxio(ctx, c.source, alluxio.Config{
		SourceOptions: ufs.Options{FollowLinks: true, Left: new(ownMounts).has, Log: m.log},
		TTL:           orShortest(c.revalidate, -1), NameTTL: orShortest(c.nameTTL(), -1),
		Timeout: c.timeout, Connections: c.connections, Budget: embedded.NewBudget(c.staging), Deferred: resumes,
		Log: m.log,
	}, alluxio.Given{Values: c.options, File: c.optionsFile})
}

// openTiers opens the source and the tiers of this machine above it.
func (m *served) openTiers(ctx context.Context, c *mountConfig, resumes bool) (cacheclient.Client, error) {
	store, err := ufs.Open(ctx, c.source, ufs.Options{
		Values: c.options, File: c.optionsFile, ResponseTimeout: c.timeout, MaxConns: c.connections,
		Deferred: resumes, FollowLinks: true, Left: new(ownMounts).has, Log: m.log,
	})
	if err != nil {
		return nil, err
	}
	m.source = store.String()
	m.undo = append(m.undo, func() { _ = store.Close() })
	levels, err := c.levels()
	if err != nil {
		return nil, err
	}
	return embedded.New(store, embedded.Config{
		Levels: levels, TTL: orShortest(c.revalidate, -1), NameTTL: orShortest(c.nameTTL(), -1),
		Timeout: c.timeout, Connections: c.connections, StagingBytes: c.staging, Beside: true, Log: m.log,
	})
}

// nameTTLs is how many times --revalidate a name and its attributes are believed, by the cache and again by the
// kernel: what is behind them is asked about when it is opened.
const nameTTLs = 10

// backendGrace is what a request gets beyond --timeout, after which the cache should have answered from what it
// has, or failed.
const backendGrace = 5 * time.Second

// nameTTL does not overflow: --revalidate is a year at the most.
func (c *mountConfig) nameTTL() time.Duration { return nameTTLs * c.revalidate }

// orShortest is d, or for 0, which stands for a default in the packages below, what they take
// for "always ask".
func orShortest(d, shortest time.Duration) time.Duration { return orDefault(d, shortest) }

func orDefault[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// mount makes the kernel's mount, or takes it over, and starts to wait for its end.
func (m *served) mount(ctx context.Context, c *mountConfig, k *keeper.Child, cache cacheclient.Client) error {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + fuse.WaitingThreads)
	cfg := fuse.Config{
		Client: cache, Source: m.source, Dir: m.dir,
		AllowOther: c.allowOther, NoPassthrough: c.noPassthrough, Inode32: c.inode32,
		FileMode: c.fileMode, DirMode: c.dirMode,
		UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
		TTL: orShortest(c.revalidate, time.Nanosecond), NameTTL: orShortest(c.nameTTL(), time.Nanosecond),
		Timeout: c.timeout + backendGrace, ReadAheadKB: int((c.readAhead + 1023) / 1024), Log: m.log,
		// Before it serves: the keeper ends the mount where children die before they do.
		Starting: k.Serving,
	}
	var session *fuse.Session
	var err error
	if k.Resumes() {
		session, err = fuse.Serve(ctx, cfg, k.Device, k.State)
	} else {
		session, err = fuse.Mount(ctx, cfg)
	}
	if err != nil {
		return err
	}
	m.session = session
	go func() { m.ended <- session.Wait() }()
	m.undo = append(m.undo, m.end)
	return nil
}

// keepWith gives the keeper what a successor needs, where it has not got that.
func (m *served) keepWith(k *keeper.Child) error {
	if k.Resumes() {
		return nil
	}
	device, state, err := m.session.Handles()
	if err != nil {
		return err
	}
	k.Kept(device, state)
	m.kept.Store(k != nil)
	_, _ = device.Close(), state.Close()
	return nil
}

// keeper tells of the keeper with that id, the process that started this one.
func (m *served) keeper(pid int) func() *agent.Keeper {
	return func() *agent.Keeper {
		k := &agent.Keeper{PID: pid, Keeps: m.kept.Load() && os.Getppid() == pid}
		switch {
		case os.Getppid() != pid:
			k.Problem = agent.KeeperGone
		case !k.Keeps:
			k.Problem = "it was not given the mount yet"
		}
		return k
	}
}

// announce starts to answer on the socket and enters the mount into the registry.
func (m *served) announce(registry agent.Registry, socket net.Listener, cache cacheclient.Client) error {
	started := time.Now()
	server := agent.New(m.log)
	if err := server.Add(agent.Mount{
		Dir: m.dir, Name: agent.MountName(m.dir), Source: m.source, Started: started,
		Client: cache, Stats: m.session.Stats, Trace: m.session.Trace, Slowest: m.session.Slowest,
		Unmount: m.session.Unmount,
		Keeper:  m.keeper(os.Getppid()),
	}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(ctx, socket); err != nil {
			m.log.Error("the socket no longer answers", "error", err)
		}
	})
	m.undo = append(m.undo, func() { cancel(); serving.Wait() })
	if err := registry.Put(agent.Entry{
		Dir: m.dir, Socket: m.socket, PID: os.Getpid(), Keeper: os.Getppid(),
		Source: m.source, Started: started,
	}); err != nil {
		return err
	}
	m.undo = append(m.undo, func() {
		if err := registry.Remove(m.dir, os.Getpid()); err != nil {
			m.log.Warn("the registry still lists the mount", "error", err)
		}
	})
	return nil
}

// close undoes every step of the start, last first.
func (m *served) close() {
	for len(m.undo) > 0 {
		last := len(m.undo) - 1
		step := m.undo[last]
		m.undo = m.undo[:last]
		if !endsInTime(step) {
			m.log.Warn("a part of the mount does not end, and is left to the end of this process", "dir", m.dir)
		}
	}
}

// endsInTime takes a step, and reports whether it ended before closePatience. One that does not, as it hangs in a cache
// or a source, ends with this process, which it must not keep from ending.
func endsInTime(step func()) bool {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		step()
	}()
	select {
	case <-ended:
		return true
	case <-time.After(closePatience):
		return false
	}
}

// end makes sure that the mount is gone, by force if need be. Once wait has returned there
// is nothing left to do.
func (m *served) end() {
	if m.session == nil {
		return
	}
	if m.leave {
		if err := m.session.Leave(); err != nil {
			m.log.Error("the mount could not be left", "dir", m.dir, "error", err)
		}
		return
	}
	if err := m.force(); err != nil {
		m.log.Error("the mount could not be ended", "dir", m.dir, "error", err)
	}
	m.drain()
}

// wait blocks until the mount has ended: it was unmounted, or a signal asked for
// that. SIGINT asks politely and, the second time, insists; SIGTERM asks once and then insists.
func (m *served) wait(signals <-chan os.Signal) error {
	insist := false
	for {
		select {
		case err := <-m.ended:
			m.session = nil
			if err != nil && !errors.Is(err, fuse.ErrHangs) {
				return fmt.Errorf("the mount on %s ended: %w", m.dir, err)
			}
			m.log.Info("unmounted", "dir", m.dir)
			return nil
		case sig := <-signals:
			done, err := m.stop(sig, insist)
			if done || err != nil {
				return err
			}
			insist = true
		}
	}
}

// stop unmounts because of a signal. It reports whether that is done; a mount in use is left alone
// at the first SIGINT.
func (m *served) stop(sig os.Signal, insist bool) (done bool, err error) {
	m.log.Info("unmounting", "dir", m.dir, "signal", sig.String())
	err = m.session.Unmount(false)
	if errors.Is(err, mountpoint.ErrBusy) {
		busy := agent.BusySentence(m.dir, agent.Users(m.dir, usersNamed))
		if sig == syscall.SIGINT && !insist {
			_, _ = fmt.Fprintf(os.Stderr, "millrace: %s; Ctrl-C again forces the unmount\n", commandline.OneLine(busy))
			return false, nil
		}
		m.log.Warn("detaching a mount that is in use", "dir", m.dir, "users", busy)
	}
	if err != nil {
		// Busy, or held by a copy of the mount in another mount namespace.
		err = m.force()
	}
	if err != nil && !errors.Is(err, fuse.ErrHangs) {
		return false, fmt.Errorf("unmount %s: %w", m.dir, err)
	}
	m.drain()
	return true, nil
}

// force detaches the mount, whatever uses it. A session whose end does not come is left to
// the end of the process, which ends it for the kernel.
func (m *served) force() error {
	forced, session := make(chan error, 1), m.session
	go func() { forced <- session.Unmount(true) }()
	select {
	case err := <-forced:
		return err
	case <-time.After(forcePatience):
		return nil
	}
}

// drain waits for the session's end after an unmount. Readers that still hold a detached
// mount do not keep us for long: their next request fails when this process ends.
func (m *served) drain() {
	select {
	case err := <-m.ended:
		if err != nil {
			m.log.Warn("the session ended badly", "dir", m.dir, "error", err)
		}
		m.log.Info("unmounted", "dir", m.dir)
	case <-time.After(detachPatience):
		m.log.Warn("unmounted while it is held open", "dir", m.dir)
	}
	m.session = nil
}

// openLog opens a log to append to. One that has grown large is put aside first.
func openLog(path string) (*os.File, error) {
	const large = 4 << 20
	if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Size() > large {
		_ = os.Rename(path, path+".1")
	}
	f, err := os.OpenFile(filepath.Clean(path), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--log-file: %w", err)
	}
	return f, nil
}
