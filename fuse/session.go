package fuse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
)

// Config describes a mount. The zero values of all but Client and Dir are usable.
type Config struct {
	// Client is what the mount shows. The session does not close it.
	Client cacheclient.Client
	// Source is shown as the mount's source in mountinfo, to everybody: no secrets in it.
	Source string
	// Dir is the mount point, an empty directory.
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
		c.Source = subtype
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
	return c.checkDir()
}

// checkDir makes Dir absolute and demands an empty directory.
func (c *Config) checkDir() error {
	dir, err := filepath.Abs(c.Dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return fmt.Errorf("the mount point: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("the mount point: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("the mount point %s is not empty", c.Dir)
	}
	c.Dir = dir
	return nil
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// Session is a mount that this process serves.
type Session struct {
	dir         string
	log         *slog.Logger
	dev         *device
	fs          *filesystem
	inflight    *inflight
	protocol    *gofuse.ProtocolServer
	counters    counters
	passthrough bool
	// cancel ends the context of everything that goes on in the session.
	cancel context.CancelFunc

	// initRequest is the kernel's INIT as it came: another process that takes over the device
	// feeds it to its own decoder. It and the two below are set before the workers start.
	initRequest []byte
	kernel      KernelSettings
	devNumber   uint64

	// workers counts the goroutines that serve, idle those of them that wait in read(2).
	workers sync.WaitGroup
	idle    atomic.Int64
	// settled is set when Mount is done with its own requests.
	settled atomic.Bool

	// endOnce guards err, why the session ended.
	endOnce sync.Once
	err     error
	// done is closed when all is over.
	done chan struct{}
}

// Mount mounts the client on a directory and serves it. It returns when the mount answers.
// The context bounds Mount only; a session lives until it is unmounted.
func Mount(ctx context.Context, cfg Config) (*Session, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := newSession(ctx, &cfg)
	dev, err := attach(ctx, &cfg)
	if err != nil {
		s.cancel()
		return nil, err
	}
	s.dev.fd = dev.fd
	if err := s.initialize(); err != nil {
		s.cancel()
		_ = detach(s.dir, lazily)
		s.dev.close()
		return nil, err
	}
	for range startWorkers {
		s.startWorker()
	}
	go s.finish()
	if err := s.settle(cfg.ReadAheadKB); err != nil {
		_ = detach(s.dir, lazily)
		return nil, errors.Join(err, s.abort())
	}
	return s, nil
}

// newSession makes a session that has no device yet.
func newSession(ctx context.Context, cfg *Config) *Session {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Session{
		dir:         cfg.Dir,
		log:         cfg.Log.With("mount", cfg.Dir),
		dev:         &device{fd: -1},
		inflight:    &inflight{base: base, calls: make(map[uint64]*call)},
		passthrough: !cfg.NoPassthrough && hasCapability(capSysAdmin),
		cancel:      cancel,
		done:        make(chan struct{}),
	}
	s.fs = &filesystem{
		readOnly: newReadOnly(),
		client:   cfg.Client,
		nodes:    newNodeTable(),
		opens:    &openTable{files: make(map[uint64]*openFile)},
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
		born:     time.Now(),
	}
	if s.passthrough {
		s.fs.backing = &backing{dev: s.dev, log: s.log}
	}
	s.protocol = newProtocol(s.fs, s.passthrough, s.log)
	return s
}

// settle asks the mount for its root, which shows that it answers and tells its device
// number, and raises the read-ahead.
func (s *Session) settle(readAheadKB int) error {
	var st unix.Stat_t
	if err := unix.Stat(s.dir, &st); err != nil {
		return fmt.Errorf("asking the new mount on %s for its root: %w", s.dir, err)
	}
	s.devNumber = st.Dev
	kb, err := raiseReadAhead(st.Dev, readAheadKB)
	if err != nil {
		s.log.Debug("the read-ahead of the mount stays as it is", "kb", kb, "error", err)
	}
	s.kernel.ReadAheadKB = kb
	return s.refusePoll()
}

// pollName is a name in the root for which go-fuse's ProtocolServer has a file of its own. It is
// there while the session settles, and for nobody else.
const pollName = ".go-fuse-epoll-hack"

// refusePoll has the kernel ask for POLL once, which is answered with ENOSYS, so that it
// never asks again. A Go program that opens a file has its runtime put it into epoll(7) without
// giving up the processor; one that reads a mount that it serves itself, as tests do, could
// not answer.
func (s *Session) refusePoll() error {
	defer s.settled.Store(true)
	fd, err := unix.Open(filepath.Join(s.dir, pollName), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("asking the new mount on %s for a file: %w", s.dir, err)
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	_ = unix.Close(fd)
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
	s.dev.close()
	close(s.done)
}

// Wait returns when the mount is gone, whoever unmounted it, and all workers have ended. The
// error tells a failure of the device; the client is left open.
func (s *Session) Wait() error {
	<-s.done
	return s.err
}
