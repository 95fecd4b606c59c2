package alluxio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

const (
	// firstAhead and largestAhead bound how far beyond what was asked for a stream receives, in bytes: the window
	// doubles as the reader moves on.
	firstAhead   = 2 << 20
	largestAhead = 16 << 20
	// behind is how much of what was asked for is kept, in bytes: the kernel sends the requests of its read-ahead side by
	// side, and they arrive in any order. Of what a worker reads from its source more is kept, because what comes too late
	// is read from there once more.
	behind     = 2 << 20
	behindCold = slack
	// stallAfter is how long a worker may bring nothing while somebody waits before another is tried.
	stallAfter = 700 * time.Millisecond
)

// windowBytes bounds the memory that the windows of all streams of the process may grow by, in bytes.
const windowBytes = 48 << 20

// windows is that memory.
var windows = semaphore.NewWeighted(windowBytes)

// stream is a block on its way from a worker, from some offset to its end: a window of chunks in the order of the
// block, ahead of its readers. A goroutine, which ends with the stream, receives; the transport's flow control has the
// worker wait while the window is full.
type stream struct {
	c      *Client
	worker *rpc.Worker
	id     int64
	k      int
	end    int64
	cancel context.CancelFunc
	// checked says that a worker reads the source.
	checked bool

	// mu guards the rest.
	mu sync.Mutex
	// changed is closed, and made anew, when anything below changes.
	changed chan struct{}
	// chunks hold [from, head); those before were given back.
	chunks     []*lentChunk
	from, head int64
	// visible is up to where readers may have the bytes: head, but for a worker that reads the source, whose
	// bytes are shown when the source is known to have the version still.
	visible int64
	// want is the furthest byte that was asked for, ahead how far beyond to receive, in bytes, and began where the
	// stream began.
	want, ahead, began int64
	// waiting are the offsets that reads under way begin at: these are kept for them.
	waiting []int64
	// reserved is what of the window memory the stream has, in bytes. It is given back when ended says that no more
	// comes.
	reserved int64
	ended    bool
	used     time.Time
	err      error
	closed   bool
	// early is called when the stream is closed before all has come, nil for nothing.
	early func()
}

// lentChunk is a chunk with references: one of the stream, one of each loan.
type lentChunk struct {
	off   int64
	chunk *rpc.Chunk
	parts [][]byte
	refs  atomic.Int64
}

func (l *lentChunk) release() {
	if l.refs.Add(-1) == 0 {
		l.chunk.Free()
	}
}

// newStream begins to receive what the reader brings.
func (c *Client) newStream(life context.Context, w *rpc.Worker, id int64, k int, r *rpc.BlockReader, end int64,
	check func(context.Context) error,
) *stream {
	ctx, cancel := context.WithCancel(life)
	s := &stream{
		c: c, worker: w, id: id, k: k, end: end, cancel: cancel, changed: make(chan struct{}),
		from: r.At(), head: r.At(), visible: r.At(), want: r.At(), began: r.At(), ahead: firstAhead, used: time.Now(),
		checked: check != nil,
	}
	if !c.begin() {
		r.Close()
		cancel()
		s.err = cacheclient.ErrClosed
		return s
	}
	go func() {
		defer c.work.Done()
		s.receive(ctx, r)
	}()
	if check != nil && c.begin() {
		go func() {
			defer c.work.Done()
			s.verify(ctx, check)
		}()
	}
	return s
}

// wake tells all who wait; mu is held.
func (s *stream) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// receive brings chunks until the block's end, an error, or the stream's end.
func (s *stream) receive(ctx context.Context, r *rpc.BlockReader) {
	// A receive that waits is ended by the reader's own stream.
	stop := context.AfterFunc(ctx, r.Abort)
	defer r.Close()
	defer stop()
	defer s.received(ctx)
	for {
		if !s.room(ctx) {
			return
		}
		c, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			s.failed(err)
			s.judge(ctx, err)
			return
		}
		s.c.count.bytesRemote.Add(int64(c.Len()))
		if !s.take(c) {
			c.Free()
			return
		}
	}
}

// take keeps a chunk that has come; false where no reader wants it any more.
func (s *stream) take(c *rpc.Chunk) bool {
	l := &lentChunk{chunk: c, parts: c.Parts()}
	l.refs.Store(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	l.off = s.head
	s.chunks = append(s.chunks, l)
	s.head += int64(c.Len())
	if !s.checked {
		s.visible = s.head
	}
	s.wake()
	return true
}

// received gives the memory for the window back when no more comes, and tells those who wait for a stream that was
// ended.
func (s *stream) received(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		s.fail(cacheclient.ErrClosed)
	}
	// What is asked for after this reserves nothing.
	s.ended = true
	windows.Release(s.reserved)
	s.reserved = 0
}

// judge counts what ended a stream against the worker, and has a damaged block removed.
func (s *stream) judge(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, cacheclient.ErrUnavailable):
		s.worker.Failed()
	}
}

// room waits until the window has room for more; false when there is no more to do.
func (s *stream) room(ctx context.Context) bool {
	for {
		more, changed := s.wants()
		if changed == nil {
			return more
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// wants reports whether to receive more, or what to wait for before that is known.
func (s *stream) wants() (more bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed || s.head >= s.end:
		return false, nil
	case s.head < s.want+s.ahead:
		return true, nil
	}
	return false, s.changed
}

// verify shows what was received when the source is known to have the version still, as often as something new is here.
func (s *stream) verify(ctx context.Context, check func(context.Context) error) {
	for {
		upTo, changed, over := s.hidden()
		switch {
		case over:
			return
		case changed != nil:
			select {
			case <-changed:
			case <-ctx.Done():
				s.failed(cacheclient.ErrClosed)
				return
			}
			continue
		}
		if err := check(ctx); err != nil {
			s.failed(err)
			return
		}
		s.show(upTo)
	}
}

// hidden is up to where there are bytes that are not shown yet; changed is what to wait for where there are none, and
// over says that there will be none.
func (s *stream) hidden() (upTo int64, changed <-chan struct{}, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.head == s.visible {
		changed = s.changed
	}
	return s.head, changed, s.closed || s.visible >= s.end
}

// show has readers see what has come.
func (s *stream) show(upTo int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.visible = upTo
	s.wake()
}

// failed notes why no more comes.
func (s *stream) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail(err)
}

// fail is failed with mu held.
func (s *stream) fail(err error) {
	if s.err == nil {
		s.err = err
	}
	s.wake()
}

// has reports whether the stream brings a span of its block soon, or has it.
func (s *stream) has(sp span) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	off, n := sp.off, sp.n
	return !s.closed && off >= s.from && off <= s.want+s.ahead && off+n <= s.end && (s.err == nil || off+n <= s.visible)
}

// read lends [off, off+n) of the block, waiting for it as long as the reader's file is open, which is its life. A
// worker that brings nothing for stallAfter is an error; one that reads its under store may take longer while it shows
// that it lives.
func (s *stream) read(ctx, life context.Context, off, n int64) (cacheclient.Data, error) {
	stall := time.NewTimer(stallAfter)
	defer stall.Stop()
	s.await(off)
	defer s.awaited(off)
	last, since := int64(-1), time.Now()
	for {
		d, visible, changed, err := s.look(off, n)
		if changed == nil {
			return d, err
		}
		if visible != last {
			last, since = visible, time.Now()
			stall.Reset(stallAfter)
		}
		select {
		case <-changed:
		case <-stall.C:
			if s.checked && time.Since(since) < s.c.cfg.Timeout && alive(ctx, s.worker, s.id) {
				stall.Reset(stallAfter)
				continue
			}
			s.c.stalled(s.worker, s.id)
			return cacheclient.Data{}, fmt.Errorf("worker %s brought nothing for %v: %w", s.worker.Addr(),
				time.Since(since).Round(time.Millisecond), cacheclient.ErrUnavailable)
		case <-ctx.Done():
			return cacheclient.Data{}, ctx.Err()
		case <-life.Done():
			return cacheclient.Data{}, cacheclient.ErrClosed
		}
	}
}

// look lends [off, off+n) if it is here, and tells otherwise why it will not come, or up to where there is something
// and what to wait for.
func (s *stream) look(off, n int64) (d cacheclient.Data, visible int64, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ask(off + n)
	switch {
	case s.closed || off < s.from:
		return cacheclient.Data{}, s.visible, nil, errPassed
	case off+n <= s.visible:
		return s.gather(off, n), s.visible, nil, nil
	case s.err != nil:
		return cacheclient.Data{}, s.visible, nil, s.err
	}
	return cacheclient.Data{}, s.visible, s.changed, nil
}

// await has the bytes from off on be kept for a read, until awaited.
func (s *stream) await(off int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, off)
}

func (s *stream) awaited(off int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.waiting, off)
	s.waiting = slices.Delete(s.waiting, i, i+1)
}

// errPassed says that a stream does not have the bytes any more.
var errPassed = errors.New("the stream has gone on")

// ask notes how far a reader wants to have the block, and lets the window grow with it; mu is held.
func (s *stream) ask(until int64) {
	s.used = time.Now()
	if until <= s.want {
		return
	}
	s.want = until
	if s.want-s.began >= s.ahead/2 && s.ahead < largestAhead && s.head < s.end && s.err == nil && !s.closed &&
		!s.ended {
		if grown := min(2*s.ahead, largestAhead); windows.TryAcquire(grown - s.ahead) {
			s.reserved += grown - s.ahead
			s.ahead = grown
		}
	}
	s.wake()
}

// gather lends the chunks of [off, off+n), which are all here, and gives back what lies far behind; mu is held.
func (s *stream) gather(off, n int64) cacheclient.Data {
	var d cacheclient.Data
	var lent []*lentChunk
	for _, l := range s.chunks {
		start, end := l.off, l.off+int64(l.chunk.Len())
		if end <= off {
			continue
		}
		if start >= off+n {
			break
		}
		l.refs.Add(1)
		lent = append(lent, l)
		d.Parts = cut(d.Parts, l.parts, max(off-start, 0), min(off+n, end)-max(off, start))
	}
	keep, from := 0, s.keepFrom()
	for keep < len(s.chunks) && s.chunks[keep].off+int64(s.chunks[keep].chunk.Len()) <= from {
		s.from = s.chunks[keep].off + int64(s.chunks[keep].chunk.Len())
		s.chunks[keep].release()
		s.chunks[keep] = nil
		keep++
	}
	s.chunks = s.chunks[keep:]
	d.Origin = cacheclient.OriginWorker
	d.Free = func() {
		for _, l := range lent {
			l.release()
		}
	}
	return d
}

// keepFrom is the offset before which nobody needs the bytes any more; mu is held.
func (s *stream) keepFrom() int64 {
	from := min(s.want, s.visible) - behind
	if s.checked {
		from = min(s.want, s.visible) - behindCold
	}
	for _, off := range s.waiting {
		from = min(from, off)
	}
	return from
}

// cut appends the n bytes of parts after skip.
func cut(to, parts [][]byte, skip, n int64) [][]byte {
	for _, p := range parts {
		if skip >= int64(len(p)) {
			skip -= int64(len(p))
			continue
		}
		p = p[skip:]
		skip = 0
		if int64(len(p)) > n {
			p = p[:n]
		}
		if len(p) > 0 {
			to = append(to, p)
		}
		if n -= int64(len(p)); n == 0 {
			break
		}
	}
	return to
}

// onEarlyEnd has early be called when the stream is closed before all of the block has come, and nothing is wrong with
// it.
func (s *stream) onEarlyEnd(early func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.early = early
}

// close ends the stream and gives its chunks back, those on loan when their loans end.
func (s *stream) close() {
	if early := s.shut(); early != nil {
		early()
	}
}

// shut is close, but for what is to be called at an early end.
func (s *stream) shut() (early func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	for _, l := range s.chunks {
		l.release()
	}
	s.chunks = nil
	s.wake()
	s.cancel()
	if s.head < s.end && s.err == nil {
		return s.early
	}
	return nil
}

// lastUsed is when somebody read from it.
func (s *stream) lastUsed() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}
