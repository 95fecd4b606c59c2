package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient/ufs"
)

// Config says what a gateway shows and within which limits. Zero values stand for the defaults.
type Config struct {
	// Store is the source. It belongs to the caller, which closes it after Serve has returned.
	Store ufs.Store
	// Bucket is the name of the one bucket; DefaultBucket if "".
	Bucket string
	// Keys are what requests must be signed with.
	Keys Keys
	// Connections is how many requests the source gets at a time, at least 2; 16 if 0. Store must allow as many.
	Connections int
	// MaxRequests is how many requests are served at a time; 64 if 0. Others wait, and are told to slow down after
	// half a minute.
	MaxRequests int
	// Timeout is how long an answer of the source is waited for; 10 s if 0.
	Timeout time.Duration
	// Revalidate is how long attributes and listings are believed; 5 s if 0, not at all if negative. A
	// GET always proves its version at the source.
	Revalidate time.Duration
	// BlockSize is the block size of Alluxio in bytes, or a part of it; 64 MiB, which is Alluxio's default, if 0. A read
	// without an end pauses once, where it comes to a multiple, for Alluxio to end it: its worker asks for a block by a
	// read that goes on to the end of the file. Negative is no pause.
	BlockSize int64
	// Options is the Fingerprint of the options that Store is asked with, nil where none is told.
	Options func() string
	// Log gets what goes wrong, and at debug level each request; nil discards.
	Log *slog.Logger
}

// DefaultBucket is the bucket's name where none is given.
const DefaultBucket = "data"

const (
	defaultConnections = 16
	defaultMaxRequests = 64
	defaultTimeout     = 10 * time.Second
	defaultRevalidate  = 5 * time.Second
	defaultBlockSize   = 64 << 20
)

// Gateway is an S3 server over one source. Its handlers may be called from many goroutines.
// D-061 says why.
type Gateway struct {
	cfg        Config
	source     *source
	attributes *attributes
	windows    *windows
	metrics    *metrics
	log        *slog.Logger
	// places has a token for each request that is served.
	places chan struct{}
	// buffers are for the bytes of streams, at most one for each place in use.
	buffers  sync.Pool
	verdicts verdicts
	// told are the paths whose absence from listings was logged.
	told noted
}

// New makes a gateway. An error is one sentence that names the field.
func New(cfg Config) (*Gateway, error) {
	cfg = cfg.defaults()
	switch {
	case cfg.Store == nil:
		return nil, errors.New("no source is given")
	case cfg.Keys.AccessKeyID == "" || cfg.Keys.SecretAccessKey == "":
		return nil, errors.New("no keys are given")
	case cfg.Connections < 2:
		return nil, fmt.Errorf("connections %d are too few: a stream and the look-up of a name need one each",
			cfg.Connections)
	}
	if err := CheckBucket(cfg.Bucket); err != nil {
		return nil, fmt.Errorf("bucket %q is %w", cfg.Bucket, err)
	}
	m := newMetrics()
	src := newSource(cfg, m)
	g := &Gateway{
		cfg: cfg, source: src, metrics: m, log: cfg.Log, places: make(chan struct{}, cfg.MaxRequests),
		attributes: newAttributes(src, cfg.Revalidate, cfg.Connections), windows: newWindows(src, cfg.Revalidate),
	}
	return g, nil
}

func (c Config) defaults() Config {
	if c.Bucket == "" {
		c.Bucket = DefaultBucket
	}
	if c.Connections == 0 {
		c.Connections = defaultConnections
	}
	if c.MaxRequests <= 0 {
		c.MaxRequests = defaultMaxRequests
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.Revalidate == 0 {
		c.Revalidate = defaultRevalidate
	}
	if c.BlockSize == 0 {
		c.BlockSize = defaultBlockSize
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

var bucketPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$`)

// CheckBucket reports whether every client can address a bucket of this name. Its error is the second half of a
// sentence.
func CheckBucket(name string) error {
	if !bucketPattern.MatchString(name) {
		return errors.New("not a bucket's name: accepted are 3 to 63 of a-z, 0-9 and -, with neither end a -")
	}
	return nil
}

// place waits for a place among the requests that are served. The caller gives it back by the function returned.
func (g *Gateway) place(ctx context.Context) (leave func(), err error) {
	if err := acquire(ctx, g.places); err != nil {
		return nil, err
	}
	g.metrics.serving.Inc()
	return func() {
		g.metrics.serving.Dec()
		<-g.places
	}, nil
}

// queueWait is how long a request waits for its turn, here or at the source. It is shorter than the 50 s after which
// Alluxio's S3 client gives a connection up.
const queueWait = 30 * time.Second

// errBusy says that a request's turn did not come.
var errBusy = errors.New("too many requests are waiting")

// acquire puts a token into slots, waiting for its turn.
func acquire(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(queueWait)
	defer timer.Stop()
	select {
	case slots <- struct{}{}:
		return nil
	case <-timer.C:
		return errBusy
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
