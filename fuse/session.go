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
	"millrace.io/millrace/fuse/mountpoint"
)

// Config describes a session. The zero values of all but Client and Dir are usable.
type Config struct {
	// Client is what the mount shows. The session does not close it.
	Client cacheclient.Client
	// Source is shown as the mount's source in mountinfo, to everybody: no secrets in it.
	Source string
	// Dir is the mount point. Mount wants an empty directory; Serve uses it as a name only.
	Dir string
	// AllowOther lets other users than the process's own in; permissions count as usual.
	AllowOther bool
	// NoPassthrough has every file read by copying.
	NoPassthrough bool
	// FileMode and DirMode are the permissions where the source tells none; 0444 and 0555 by
	// default. Nobody gets permission to write, whatever these or the source say.
	FileMode, DirMode os.FileMode
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
	// Log takes what the session has to say; nothing is logged where it is nil.
	Log *slog.Logger
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

	// handles guards the device and the state against being closed while they are copied.
	handles sync.Mutex

	// endOnce guards err, why the session ended.
	endOnce sync.Once
	err     error
	// done is closed when all is over.
	done chan struct{}
}

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
	s, err := Serve(ctx, cfg, dev, nil)
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
	if saved == nil {
		err = s.initialize()
	} else {
		err = s.resume()
	}
	if err != nil {
		s.cancel()
		s.dev.close()
		s.state.close()
		return nil, err
	}
	for range startWorkers {
		s.startWorker()
	}
	go s.finish()
	return s, nil
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
		inflight:    &inflight{base: base, calls: make(map[uint64]*call)},
		passthrough: !cfg.NoPassthrough && mountpoint.HasSysAdmin(),
		cancel:      cancel,
		done:        make(chan struct{}),
		devNumber:   state.device(),
		resumes:     state.resumes(),
	}
	s.fs = &filesystem{
		readOnly: newReadOnly(),
		client:   cfg.Client,
		nodes:    newNodeTable(state),
		opens:    newOpenTable(state),
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
	s.fs.backing.off.Store(!s.passthrough)
	s.protocol = newProtocol(s.fs, s.passthrough, s.log)
	return s
}

// resume goes on where another process stopped: it learns from the state what the kernel knows, tells the
// decoder what was agreed upon, and has the kernel send again what was not answered.
func (s *Session) resume() error {
	if err := s.fs.nodes.load(); err != nil {
		return err
	}
	open, left, used, err := s.fs.opens.load()
	if err != nil {
		return err
	}
	s.fs.backing.clean(left, used)
	for _, h := range left {
		s.state.release(h.saved)
	}
	agreed := len(s.state.init()) > 0
	if agreed {
		// The kernel has had an answer; this one only sets the decoder.
		if _, err := s.negotiate(pagesLimit()); err != nil {
			return err
		}
	}
	if errno := s.dev.write(resendRequest()); errno == unix.EINVAL {
		return fmt.Errorf("%w: the kernel does not send requests again (Linux 6.9 or later does)", ErrState)
	}
	if !agreed {
		return s.initialize()
	}
	s.workers.Go(func() { s.fs.reopen(s.inflight.base, open) })
	return nil
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
	})
}

// finish waits for the workers and gives everything back.
func (s *Session) finish() {
	s.workers.Wait()
	s.deviceEnded(nil)
	for _, file := range s.fs.opens.drain() {
		s.fs.closeFile(file)
	}
	s.handles.Lock()
	defer s.handles.Unlock()
	s.dev.close()
	s.state.close()
	close(s.done)
}

// Wait returns when the mount is gone, whoever unmounted it, and all workers have ended. The
// error tells a failure of the device; the client is left open.
func (s *Session) Wait() error {
	<-s.done
	return s.err
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
	if dev, err = dup(s.dev.file); err != nil {
		return nil, nil, err
	}
	if state, err = dup(s.state.file); err != nil {
		_ = dev.Close()
		return nil, nil, err
	}
	return dev, state, nil
}

// dup copies a descriptor.
func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copying a descriptor: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Leave stops serving without ending the mount, which lives on where another process holds the device. What was
// being served is left unanswered, for that process. It returns when this one has stopped.
func (s *Session) Leave() error { return s.giveUp() }
