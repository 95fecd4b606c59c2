package gateway

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"sync/atomic"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/backoff"
	"millrace.io/millrace/cacheclient/border"
	"millrace.io/millrace/cacheclient/ufs"
)

const (
	// attempts is how often the source is asked before a request fails. They are few, since S3 clients
	// ask again themselves.
	attempts = 3
	// firstPause is waited at most before the second attempt, and four times as long, up to longestPause, before the
	// third.
	firstPause   = 150 * time.Millisecond
	longestPause = 10 * time.Second
)

// source asks the store: again where that helps, and counted.
type source struct {
	store   ufs.Store
	timeout time.Duration
	metrics *metrics
	log     *slog.Logger
	// streams has a token for each body that is being received.
	streams chan struct{}
	// answered is when the source last gave what it was asked for, in nanoseconds of Unix time.
	answered atomic.Int64
}

func newSource(cfg Config, m *metrics) *source {
	return &source{
		store: cfg.Store, timeout: cfg.Timeout, metrics: m, log: cfg.Log,
		streams: make(chan struct{}, cfg.Connections-1),
	}
}

// try makes attempts until one does not fail in a way that another may mend.
func (s *source) try(ctx context.Context, operation string, attempt func(context.Context) error) error {
	pauses := backoff.Pauses{First: firstPause, Longest: longestPause, Factor: 4, Spread: 2.0 / 3}
	for n := 1; ; n++ {
		err := attempt(ctx)
		s.note(operation, err)
		again, after := ufs.Retryable(err)
		if !again || n == attempts || after > s.timeout || ctx.Err() != nil {
			return err
		}
		wait := max(after, pauses.Next())
		s.log.Debug("the source is asked again", "operation", operation, "wait", wait, "error", err)
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// note counts an attempt, and remembers that the source gave what it was asked for. That it has no such file is no
// failure of it, and no proof that it shows what it has.
func (s *source) note(operation string, err error) {
	switch {
	case err == nil, errors.Is(err, errEnough):
		s.answered.Store(time.Now().UnixNano())
		err = nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, cacheclient.ErrNotDir):
		err = nil
	}
	s.metrics.sourceRequest(operation, err)
}

// stat describes a path.
func (s *source) stat(ctx context.Context, path string) (info cacheclient.Info, err error) {
	// Waiting for a connection has no other limit.
	ctx, cancel := context.WithTimeoutCause(ctx, queueWait+2*s.timeout, errBusy)
	defer cancel()
	err = s.try(ctx, "stat", func(ctx context.Context) error {
		info, err = s.store.Stat(ctx, path)
		return err
	})
	if err != nil || info.Dir {
		return info, err
	}
	return info, border.Size(info.Size)
}

// list reads a directory. Each attempt begins with a call of restart.
func (s *source) list(ctx context.Context, dir string, restart func(), fn func(cacheclient.Info) error) error {
	return s.try(ctx, "list", func(ctx context.Context) error {
		restart()
		return s.store.List(ctx, dir, fn)
	})
}

// open reads a range of a version. The caller has a token of streams.
func (s *source) open(ctx context.Context, info cacheclient.Info, off, length int64) (body *ufs.Body, err error) {
	err = s.try(ctx, "open", func(ctx context.Context) error {
		body, err = s.store.Open(ctx, info, off, length)
		return err
	})
	return body, err
}

// sleep waits, or returns why the context ended first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// transient reports whether an error says that the source does not answer now, rather than what it answered.
func transient(err error) bool {
	again, _ := ufs.Retryable(err)
	return again || errors.Is(err, errBusy) || errors.Is(err, cacheclient.ErrUnavailable) ||
		errors.Is(err, context.DeadlineExceeded)
}
