package fuse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/fuse/deaths"
	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/mountpoint"
)

// Config describes a session. The zero values of all but Client and Dir are usable.
type Config struct {
	// Client is what the mount shows. The session does not close it.
	Client cacheclient.Client
	// Source is shown as the mount's source in mountinfo, to all users: no secrets in it.
	Source string
	// Dir is the mount point. Mount wants an empty directory; Serve uses it as a name only.
	Dir string
	// AllowOther lets other users than the process's own in; permissions count as usual.
	AllowOther bool
	// NoPassthrough has every file read by copying.
	NoPassthrough bool
	// FileMode and DirMode are the permissions where the source tells none; 0444 and 0555 by
	// default. No user gets permission to write, whatever these or the source say.
	FileMode, DirMode os.FileMode
	// Inode32 gives inode numbers that fit 32 bits, for programs of 32 bits without large files.
	Inode32 bool
	// UID and GID own everything. Both 0 stand for the process's own.
	UID, GID uint32
	// TTL is how long the kernel may believe the absence of a name without asking, a minute by
	// default, and NameTTL a name that is there, TTL by default. The latter may be longer, because opens
	// and listings ask again.
	TTL, NameTTL time.Duration
	// Timeout bounds an operation on metadata, 10 s by default. Reads are bounded by the client.
	Timeout time.Duration
	// ReadAheadKB is the kernel's read-ahead for this mount in KiB, 4096 by default. Only
	// root can set it.
	ReadAheadKB int
	// PauseAfterDeaths has a session over whose requests many processes died within a minute begin to serve after a
	// while, for processes that serve others too and are not paused by their starter.
	PauseAfterDeaths bool
	// Starting is called when a session that was taken over is about to serve: what ends the process from then on may
	// be a request. Nil for nothing.
	Starting func()
	// Log takes what the session has to say; nothing is logged where it is nil.
	Log *slog.Logger

	// interruptPatience is for tests, 0 for the default.
	interruptPatience time.Duration
}

const (
	defaultFileMode    = 0o444
	defaultDirMode     = 0o555
	defaultTTL         = time.Minute
	defaultTimeout     = 10 * time.Second
	defaultReadAheadKB = 4096
)

// complete checks the configuration and fills in the defaults.
func (c *Config) complete() error {
	if c.Client == nil {
		return errors.New("a mount needs a client")
	}
	if c.Source == "" {
		c.Source = "millrace"
	}
	c.FileMode = orDefault(c.FileMode, defaultFileMode)
	c.DirMode = orDefault(c.DirMode, defaultDirMode)
	c.TTL = orDefault(c.TTL, defaultTTL)
	c.NameTTL = orDefault(c.NameTTL, c.TTL)
	c.Timeout = orDefault(c.Timeout, defaultTimeout)
	c.ReadAheadKB = orDefault(c.ReadAheadKB, defaultReadAheadKB)
	if c.UID == 0 && c.GID == 0 {
		c.UID, c.GID = uint32(os.Geteuid()), uint32(os.Getegid())
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// Session is a connection that this process serves.
type Session struct {
	dir         string
	log         *slog.Logger
	dev         *device
	state       *stateFile
	fs          *filesystem
	inflight    *inflight
	quarantine  *quarantine
	protocol    *gofuse.ProtocolServer
	counters    counters
	outcomes    outcomes
	tracer      tracer
	passthrough bool
	// cancel ends the context of everything that goes on in the session.
	cancel context.CancelFunc

	// kernel is set before the workers start. readAheadKB is set by Mount alone.
	kernel      KernelSettings
	readAheadKB int

	// workers counts the goroutines that serve, idle those of them that wait in read(2).
	workers sync.WaitGroup
	idle    atomic.Int64

	// devNumber is the mount's device number, 0 where it is not known, and resumes how many processes served before;
	// both are set before the session is given to anybody.
	devNumber uint64
	resumes   int64

	// handles serializes the copying and the closing of the device and the state.
	handles sync.Mutex

	// endOnce guards err, why the session ended; over is closed then.
	endOnce sync.Once
	err     error
	over    chan struct{}
	// hung says that a handler did not end; it is set before done is closed, which is when all is over.
	hung error
	done chan struct{}
}

// ErrHangs says that a session ended and a request to the cache does not.
var ErrHangs = errors.New("a request to the cache does not end")

// Mount mounts the client on a directory and serves it. It returns when the mount answers.
// The context bounds Mount only; a session lives until it is unmounted.
func Mount(ctx context.Context, cfg Config) (*Session, error) {
	dir, err := mountpoint.Prepare(cfg.Dir)
	if err != nil {
		return nil, err
	}
	cfg.Dir = dir
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	dev, err := mountpoint.Attach(ctx, mountpoint.Options{Dir: cfg.Dir, Source: cfg.Source, AllowOther: cfg.AllowOther})
	if err != nil {
		return nil, err
	}
	s, err := serveIn(ctx, cfg, dev, nil, ownNamespace())
	if err != nil {
		_ = mountpoint.Detach(cfg.Dir, mountpoint.Lazily)
		return nil, err
	}
	settled, err := mountpoint.Settle(s.dir, cfg.ReadAheadKB)
	if err != nil {
		_ = mountpoint.Detach(s.dir, mountpoint.Lazily)
		return nil, errors.Join(err, s.Abort())
	}
	s.settled(settled)
	return s, nil
}

// Serve serves a connection that was mounted before: a new one, whose INIT it answers, where saved is nil, else
// one that another process served, by the state which that process had. The former process must have ended.
// Both files are the session's from then on, also where Serve fails. An error of ErrState says that the
// connection cannot be taken over. The context bounds Serve only.
func Serve(ctx context.Context, cfg Config, dev, saved *os.File) (*Session, error) {
	return serveIn(ctx, cfg, dev, saved, 0)
}

// serveIn is Serve for a mount that was made in this namespace of process ids, 0 where that is not known.
func serveIn(ctx context.Context, cfg Config, dev, saved *os.File, space uint64) (*Session, error) {
	if err := cfg.complete(); err != nil {
		_ = dev.Close()
		if saved != nil {
			_ = saved.Close()
		}
		return nil, err
	}
	state, err := openState(saved)
	if err != nil {
		_ = dev.Close()
		return nil, err
	}
	s := newSession(ctx, &cfg, newDevice(dev), state)
	var pause time.Duration
	if saved == nil {
		s.state.saveSpace(space)
		err = s.initialize()
	} else {
		pause, err = s.resume(&cfg)
	}
	if err != nil {
		s.cancel()
		s.dev.close()
		s.state.close()
		return nil, err
	}
	if own := ownNamespace(); own != 0 && own == s.state.space() {
		// The kernel's numbers of callers are this process's own.
		s.inflight.dying = callerDying
	}
	s.workers.Go(func() { s.startServing(pause) })
	go s.finish()
	return s, nil
}

// startServing starts the first workers, after a pause.
func (s *Session) startServing(pause time.Duration) {
	if pause > 0 {
		s.log.Warn("the session waits before it serves: processes died over its requests again and again", "pause",
			pause)
		select {
		case <-time.After(pause):
		case <-s.inflight.base.Done():
			return
		}
	}
	for range startWorkers {
		s.startWorker()
	}
}

// settled keeps what Mount found out; the session may have ended by then.
func (s *Session) settled(found mountpoint.Settled) {
	s.handles.Lock()
	defer s.handles.Unlock()
	s.devNumber, s.readAheadKB = found.Device, found.ReadAheadKB
	select {
	case <-s.done:
	default:
		s.state.saveDevice(found.Device)
	}
}

// openState is the state to go on with, a new one where there is none.
func openState(saved *os.File) (*stateFile, error) {
	if saved == nil {
		return newStateFile()
	}
	return openStateFile(saved)
}

// newSession makes a session that serves nothing yet.
func newSession(ctx context.Context, cfg *Config, dev *device, state *stateFile) *Session {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Session{
		dir:         cfg.Dir,
		log:         cfg.Log.With("mount", cfg.Dir),
		dev:         dev,
		state:       state,
		inflight:    newInflight(base, cfg.interruptPatience),
		passthrough: !cfg.NoPassthrough && mountpoint.HasSysAdmin(),
		cancel:      cancel,
		over:        make(chan struct{}),
		done:        make(chan struct{}),
		devNumber:   state.device(),
		resumes:     state.resumes(),
	}
	s.fs = &filesystem{
		readOnly: newReadOnly(),
		client:   cfg.Client,
		nodes:    newNodeTable(state),
		opens:    newOpenTable(state),
		dirs:     newDirTable(state),
		inflight: s.inflight,
		faults:   &faultLog{log: s.log},
		stats:    &s.counters,
		log:      s.log,
		ttl:      cfg.TTL,
		nameTTL:  cfg.NameTTL,
		timeout:  cfg.Timeout,
		fileMode: uint32(cfg.FileMode.Perm()) &^ 0o222,
		dirMode:  uint32(cfg.DirMode.Perm()) &^ 0o222,
		uid:      cfg.UID,
		gid:      cfg.GID,
		born:     state.born(),
		backing:  &backing{dev: dev, state: state, log: s.log},
	}
	s.quarantine = newQuarantine(state, s.log)
	// It is called with the locks held of what finds out.
	state.onFull = func() { s.workers.Go(s.tellFull) }
	if cfg.Inode32 {
		s.fs.numbers = newInodeNumbers(state)
	}
	s.fs.backing.off.Store(!s.passthrough)
	s.protocol = newProtocol(s.fs, s.passthrough, s.log)
	return s
}

// tellFull logs that the state has no room.
func (s *Session) tellFull() {
	s.log.Error("the session's state is full: the next process answers ESTALE for what the kernel comes to know from "+
		"now on",
		"bytes", stateSize, "nodes", s.fs.nodes.known())
}

// resume goes on where another process stopped: it learns from the state what the kernel knows, tells the
// decoder what was agreed upon, and has the kernel send again what was not answered. It returns how long to wait before
// that is served.
func (s *Session) resume(cfg *Config) (pause time.Duration, err error) {
	if err := s.fs.nodes.load(); err != nil {
		return 0, err
	}
	if err := s.fs.numbers.load(s.fs.nodes); err != nil {
		return 0, err
	}
	if pause, err = s.countDeaths(cfg.PauseAfterDeaths); err != nil {
		return 0, err
	}
	if err := s.fs.dirs.load(); err != nil {
		return 0, err
	}
	open, left, used, err := s.fs.opens.load()
	if err != nil {
		return 0, err
	}
	s.fs.backing.clean(left, used)
	for _, h := range left {
		s.state.release(h.saved)
	}
	agreed := len(s.state.init()) > 0
	if agreed {
		// The kernel has had an answer; this one only sets the decoder.
		if _, err := s.negotiate(pagesLimit()); err != nil {
			return 0, err
		}
	}
	if errno := s.dev.write(resendRequest()); errno == unix.EINVAL {
		return 0, fmt.Errorf("%w: the kernel does not send requests again (Linux 6.9 or later does)", ErrState)
	}
	if cfg.Starting != nil {
		cfg.Starting()
	}
	if !agreed {
		return pause, s.initialize()
	}
	s.workers.Go(func() { s.fs.reopen(s.inflight.base, open) })
	s.workers.Go(func() { s.fs.releaseUnclaimed(s.inflight.base) })
	return pause, nil
}

// countDeaths learns what was in service when the last process ended, and returns how long this one waits, where it is
// to pause. One whose predecessor died while it waited waits for the rest.
func (s *Session) countDeaths(pauses bool) (time.Duration, error) {
	now, tookOver := time.Now(), s.state.tookOver()
	inService, err := s.quarantine.load(tookOver, now)
	if err != nil || !tookOver {
		return 0, err
	}
	died := s.state.deaths()
	if inService > 0 {
		died = deaths.Recent(died, now)
		s.state.saveDeaths(died)
	}
	if !pauses || !deaths.Many(died, now) {
		return 0, nil
	}
	return max(0, deaths.Pause(died, now)-max(0, now.Sub(died[len(died)-1]))), nil
}

// deviceEnded notes the end of the session: the file system is gone (ENODEV, or no
// bytes from a device that was severed), or the device failed.
func (s *Session) deviceEnded(err error) {
	s.endOnce.Do(func() {
		if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ECONNABORTED) {
			s.err = fmt.Errorf("reading from the kernel: %w", err)
			s.log.Error("the device failed", "error", err)
		}
		s.cancel()
		close(s.over)
	})
}

// finish waits for the workers and gives everything back. Once the session is over, a worker whose handler does not end
// is left behind: what it still does reaches neither the kernel nor the next process.
func (s *Session) finish() {
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		s.workers.Wait()
		s.inflight.watching.Wait()
		for _, file := range s.fs.opens.drain() {
			s.fs.closeFile(file)
		}
	}()
	select {
	case <-idle:
	case <-s.over:
		select {
		case <-idle:
		case <-time.After(handlerGrace):
			s.abandon()
			return
		}
	}
	s.deviceEnded(nil)
	s.handles.Lock()
	defer s.handles.Unlock()
	s.dev.close()
	s.state.close()
	close(s.done)
}

// abandon ends a session of which a handler hangs. Its descriptors stay open, as their numbers must not come to mean
// others'.
func (s *Session) abandon() {
	s.hung = ErrHangs
	s.handles.Lock()
	defer s.handles.Unlock()
	if err := errors.Join(s.dev.sever(), s.state.sever()); err != nil {
		s.log.Error("a session whose handler hangs was not given up", "error", err)
	}
	_, op, age := s.inflight.oldest()
	s.log.Warn("the session ended, and a request to the cache does not", "op", opName(op), "age", age)
	close(s.done)
}

// Wait returns when the mount is gone, however it was unmounted, and all workers have ended. The
// error tells a failure of the device, or is ErrHangs where a worker was left behind; the client is left open.
func (s *Session) Wait() error {
	<-s.done
	return errors.Join(s.err, s.hung)
}

// Handles gives copies of the device and the state, for another process to go on with when this one has
// ended. They belong to the caller. It fails where the session has ended.
func (s *Session) Handles() (dev, state *os.File, err error) {
	s.handles.Lock()
	defer s.handles.Unlock()
	select {
	case <-s.done:
		return nil, nil, errors.New("the session has ended")
	default:
	}
	if dev, err = handover.CopyFile(s.dev.file); err != nil {
		return nil, nil, err
	}
	if state, err = handover.CopyFile(s.state.file); err != nil {
		_ = dev.Close()
		return nil, nil, err
	}
	return dev, state, nil
}

// Leave stops serving without ending the mount, which lives on where another process holds the device. What was
// being served is left unanswered, for that process. It returns when this one has stopped.
func (s *Session) Leave() error {
	s.handles.Lock()
	select {
	case <-s.done:
	default:
		s.state.leave()
	}
	s.handles.Unlock()
	return s.giveUp()
}
