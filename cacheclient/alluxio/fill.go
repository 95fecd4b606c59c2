package alluxio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/ufs"
)

const (
	// pieceSize is the unit of a fill in bytes: what is marked as here, or on its way.
	pieceSize = 1 << 20
	// runPieces is the longest request to the source that nobody waits for yet, in pieces.
	runPieces = 8
	// background is how many such requests of one fill run side by side.
	background = 3
	// noRoomFor is how long a worker that refused a block is not asked to take it again.
	noRoomFor = 10 * time.Second
	// bringing is how much may be on its way into workers at once, in MiB, and at least and at most what one block counts for: a
	// few large blocks or many small ones, whose commits take longer than they do. bringPatience is how long a reader waits for
	// that; one who waited longer reads past the workers.
	bringing, leastBring, mostBring = 256, 4, 64
	bringPatience                   = 2 * time.Second
	// commitPatience bounds the worker's last step.
	commitPatience = 10 * time.Second
)

// fill is a cold block on its way from the source into a tier of this machine: the worker made the file, this process
// writes it by parallel ranges, and readers have the bytes as they come. The source is read once, whoever reads
// what. When all is here the worker makes it a block; before that nobody else sees it, and should this process
// die, the worker drops it.
type fill struct {
	c      *Client
	id     int64
	length int64
	// base is where the block begins in the file, info the version in the source.
	base  int64
	info  cacheclient.Info
	block *rpc.LocalBlock
	// file is the temporary block, mapped; a reference is the fill's until its end.
	file *blockFile
	ctx  context.Context
	end  context.CancelFunc

	// mu guards the rest.
	mu sync.Mutex
	// changed is closed, and made anew, when anything below changes.
	changed chan struct{}
	state   []pieceState
	left    int
	runs    []*run
	// cursor is the piece at which background requests go on: behind what was asked for last.
	cursor  int
	started bool
	err     error
	// over says that the fill has ended, and ended is closed then.
	over  bool
	ended chan struct{}
}

// pieceState is what is known of a piece.
type pieceState uint8

const (
	absent pieceState = iota
	coming
	here
)

// run is a request under way for the pieces [first, last).
type run struct {
	first, last int
	// at is the offset in the block up to which bytes are here.
	at int64
}

func pieces(length int64) int { return int((length + pieceSize - 1) / pieceSize) }

// filled reads a span of a block that is being filled; false if it is not.
func (c *Client) filled(ctx context.Context, id int64, s span) (cacheclient.Data, bool, error) {
	c.mu.Lock()
	fl := c.fills[id]
	c.mu.Unlock()
	if fl == nil {
		return cacheclient.Data{}, false, nil
	}
	d, err := fl.read(ctx, s)
	if err != nil && ctx.Err() == nil && !errors.Is(err, cacheclient.ErrStale) {
		// The block may be had otherwise.
		return d, false, nil
	}
	return d, true, err
}

// fillFor begins to fill the block that the span is of, if there is a worker of this machine with room for it and
// not too much under way, and reads the span from it. It is false where no fill can be had.
func (c *Client) fillFor(ctx context.Context, f *file, s span, info cacheclient.Info) (cacheclient.Data, bool, error) {
	id := f.l.block(s.k)
	if d, ok, err := c.filled(ctx, id, s); ok {
		return d, true, err
	}
	_, err, _ := c.flight.Do("fill "+strconv.FormatInt(id, 10), func() (any, error) {
		return nil, c.startFill(ctx, f, s.k, info)
	})
	if err != nil {
		return cacheclient.Data{}, false, err
	}
	if d, ok, err := c.filled(ctx, id, s); ok {
		return d, true, err
	}
	// It was so short that it is over.
	if b := c.localBlock(ctx, id, f.l.length(s.k)); b != nil {
		return f.lend(b, s), true, nil
	}
	return cacheclient.Data{}, false, nil
}

var errNoFill = errors.New("the block is not filled by this process")

// startFill makes the fill of a block and starts it.
func (c *Client) startFill(ctx context.Context, f *file, k int, info cacheclient.Info) error {
	id, length := f.l.block(k), f.l.length(k)
	w, err := c.filler(ctx, id, length)
	if err != nil {
		return err
	}
	weight, err := c.mayBring(ctx, length)
	if err != nil {
		return err
	}
	fl, err := c.newFill(ctx, w, id, length)
	if err != nil {
		c.bringing.Release(weight)
		c.refused.first(id, noRoomFor)
		return err
	}
	fl.base, fl.info = int64(k)*f.l.blockSize, info
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		fl.abandon()
		c.bringing.Release(weight)
		return cacheclient.ErrClosed
	}
	c.fills[id] = fl
	c.work.Add(1)
	go func() {
		defer c.work.Done()
		defer c.bringing.Release(weight)
		fl.finish()
	}()
	return nil
}

// mayBring waits until a block of this length may be brought, and returns what is to be released after.
func (c *Client) mayBring(ctx context.Context, length int64) (int64, error) {
	weight := min(max((length+1<<20-1)>>20, leastBring), mostBring)
	ctx, cancel := context.WithTimeout(ctx, bringPatience)
	defer cancel()
	if err := c.bringing.Acquire(ctx, weight); err != nil {
		return 0, fmt.Errorf("%w: too much is on its way", errNoFill)
	}
	return weight, nil
}

// filler is the worker that is to have a block, if it is of this machine.
func (c *Client) filler(ctx context.Context, id, length int64) (*rpc.Worker, error) {
	here := c.local.all()
	if len(here) == 0 || c.refused.was(id) {
		return nil, errNoFill
	}
	ranked, err := c.rank(ctx, id, length)
	if err != nil || len(ranked) == 0 || !c.local.is(ranked[0]) || ranked[0].Broken() {
		return nil, errNoFill
	}
	return ranked[0], nil
}

// newFill has the worker make the file.
func (c *Client) newFill(ctx context.Context, w *rpc.Worker, id, length int64) (*fill, error) {
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	block, err := w.CreateLocal(ctx, id, length)
	if err != nil {
		return nil, err
	}
	file, err := openTemporary(block.Path, id, length)
	if err != nil {
		block.Abort()
		if errors.Is(err, fs.ErrNotExist) {
			c.local.hide(w)
		}
		return nil, err
	}
	fl := &fill{
		c: c, id: id, length: length, block: block, file: file,
		changed: make(chan struct{}), ended: make(chan struct{}), state: make([]pieceState, pieces(length)), left: pieces(length),
	}
	fl.ctx, fl.end = context.WithCancel(c.life)
	return fl, nil
}

// openTemporary opens the file that a worker made for a block, and gives it its length. The path comes from the worker:
// only what looks like a temporary block is written to.
func openTemporary(path string, id, length int64) (*blockFile, error) {
	if !filepath.IsAbs(path) || !strings.HasSuffix(filepath.Base(path), "-"+strconv.FormatInt(id, 10)) {
		return nil, fmt.Errorf("%w: the worker names %q for a new block %d", errDamaged, path, id)
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() != 0) {
		err = fmt.Errorf("%w: the new block %q has %d bytes already", errDamaged, path, st.Size())
	}
	if err == nil {
		err = f.Truncate(length)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return mapBlockFile(f, id, length)
}

// abandon drops a fill that was never started, or has failed.
func (fl *fill) abandon() {
	fl.end()
	fl.block.Abort()
	fl.file.release()
}

// finish waits until all pieces are here, or none will come, and makes the file a block.
func (fl *fill) finish() {
	err := fl.wait()
	if err == nil {
		ctx, cancel := context.WithTimeout(fl.ctx, commitPatience)
		err = fl.block.Commit(ctx)
		cancel()
	}
	fl.mu.Lock()
	if fl.err == nil {
		fl.err = err
	}
	fl.over = true
	close(fl.ended)
	fl.wake()
	fl.mu.Unlock()
	fl.c.mu.Lock()
	delete(fl.c.fills, fl.id)
	fl.c.mu.Unlock()
	if err == nil {
		// The reader's next open finds it by its name.
		fl.c.places.forget(fl.id)
	} else if !errors.Is(err, context.Canceled) {
		fl.c.refused.first(fl.id, noRoomFor)
		fl.c.log.Info("a block was not cached", "path", fl.info.Path, "block", fl.id, "error", err)
	}
	fl.abandon()
}

// wait returns when all pieces are here, or with why they will not come.
func (fl *fill) wait() error {
	for {
		fl.mu.Lock()
		left, err, changed := fl.left, fl.err, fl.changed
		fl.mu.Unlock()
		switch {
		case err != nil:
			return err
		case left == 0:
			return nil
		}
		select {
		case <-changed:
		case <-fl.ctx.Done():
			return fl.ctx.Err()
		}
	}
}

// wake tells all who wait; mu is held.
func (fl *fill) wake() {
	close(fl.changed)
	fl.changed = make(chan struct{})
}

// read lends a span as soon as it is here, after asking for it.
func (fl *fill) read(ctx context.Context, s span) (cacheclient.Data, error) {
	for {
		fl.mu.Lock()
		if fl.has(s.off, s.off+s.n) {
			file := fl.file.retain()
			fl.mu.Unlock()
			// Now that somebody has what he waited for, the rest may come.
			fl.goOn()
			return cacheclient.Data{Parts: [][]byte{file.bytes(s.off, s.n)}, Free: file.release, Origin: cacheclient.OriginSource}, nil
		}
		if fl.err != nil || fl.over {
			err := fl.err
			fl.mu.Unlock()
			return cacheclient.Data{}, errors.Join(errNoFill, err)
		}
		fl.demand(s.off, s.off+s.n)
		changed := fl.changed
		fl.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return cacheclient.Data{}, fmt.Errorf("read %q: %w", fl.info.Path, ctx.Err())
		}
	}
}

// has tells whether the bytes [from, to) are here; mu is held. It is never true once the fill is over, when the file's
// reference is given back.
func (fl *fill) has(from, to int64) bool {
	if fl.over {
		return false
	}
	for p := int(from / pieceSize); int64(p)*pieceSize < to; p++ {
		switch fl.state[p] {
		case absent:
			return false
		case coming:
			r := fl.runOf(p)
			if r == nil || r.at < min(to, int64(p+1)*pieceSize, fl.length) {
				return false
			}
		case here:
		}
	}
	return true
}

// runOf is the request that brings a piece; mu is held.
func (fl *fill) runOf(p int) *run {
	for _, r := range fl.runs {
		if p >= r.first && p < r.last {
			return r
		}
	}
	return nil
}

// demand starts what is missing of [from, to), which somebody waits for; mu is held.
func (fl *fill) demand(from, to int64) {
	last := pieces(to)
	for p := int(from / pieceSize); p < last; p++ {
		if fl.state[p] != absent {
			continue
		}
		first := p
		for p < last && fl.state[p] == absent {
			p++
		}
		if !fl.started {
			// A reader that begins is likely to go on: one request for more than he asked.
			for p < min(first+runPieces, len(fl.state)) && fl.state[p] == absent {
				p++
			}
		}
		fl.start(first, p, nil)
	}
	fl.cursor = last
}

// goOn starts the requests that nobody waits for, once.
func (fl *fill) goOn() {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.started || fl.over {
		return
	}
	fl.started = true
	for range background {
		fl.startNext()
	}
}

// startNext starts the next request that nobody waits for, behind what was asked for last, and then what is missing
// before; mu is held.
func (fl *fill) startNext() {
	n := len(fl.state)
	for i := range n {
		first := (fl.cursor + i) % n
		if fl.state[first] != absent {
			continue
		}
		last := first
		for last < min(first+runPieces, n) && fl.state[last] == absent {
			last++
		}
		fl.cursor = last % n
		fl.start(first, last, fl.startNext)
		return
	}
}

// start begins a request for the pieces [first, last), after which next is called with mu held; mu is held.
func (fl *fill) start(first, last int, next func()) {
	if fl.err != nil || !fl.c.begin() {
		return
	}
	r := &run{first: first, last: last, at: int64(first) * pieceSize}
	for p := first; p < last; p++ {
		fl.state[p] = coming
	}
	fl.runs = append(fl.runs, r)
	fl.file.retain()
	go func() {
		defer fl.c.work.Done()
		defer fl.file.release()
		fl.settle(r, fl.bring(r), next)
	}()
}

// settle takes note of a request's end.
func (fl *fill) settle(r *run, err error, next func()) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for i := range fl.runs {
		if fl.runs[i] == r {
			fl.runs = append(fl.runs[:i], fl.runs[i+1:]...)
			break
		}
	}
	for p := r.first; p < r.last; p++ {
		if min(int64(p+1)*pieceSize, fl.length) <= r.at {
			fl.state[p] = here
			fl.left--
		} else {
			fl.state[p] = absent
		}
	}
	if err != nil && fl.err == nil {
		fl.err = err
	}
	if err == nil && next != nil {
		next()
	}
	fl.wake()
}

// errNoRanges says that a source sends the whole file whatever it is asked for: side by side, requests would bring it again
// and again.
var errNoRanges = errors.New("the source has no ranges")

// bring makes attempts until the run is here, the error is final, or nothing has come for as long as the client waits.
func (fl *fill) bring(r *run) error {
	c := fl.c
	if err := c.slots.Acquire(fl.ctx, 1); err != nil {
		return err
	}
	defer c.slots.Release(1)
	end := min(int64(r.last)*pieceSize, fl.length)
	giveUp := time.Now().Add(c.cfg.Timeout)
	for delay := 20 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		before := r.at
		err := fl.attempt(r, end)
		if err == nil {
			return nil
		}
		if r.at > before {
			giveUp, delay = time.Now().Add(c.cfg.Timeout), 20*time.Millisecond
		}
		again, after := ufs.Retryable(err)
		wait := max(delay, after)
		if isGone(err) {
			err = cacheclient.ErrStale
		}
		if fl.ctx.Err() != nil || !again || time.Now().Add(wait).After(giveUp) {
			return err
		}
		c.count.sourceErrors.Add(1)
		if !sleep(fl.ctx, wait) {
			return fl.ctx.Err()
		}
	}
}

// attempt makes one request for what is missing of a run.
func (fl *fill) attempt(r *run, end int64) error {
	ctx, cancel := context.WithCancel(fl.ctx)
	defer cancel()
	fl.c.count.sourceRequests.Add(1)
	// Nothing for that long ends it; the run is only changed by this goroutine.
	silence := time.AfterFunc(fl.c.cfg.Timeout, cancel)
	defer silence.Stop()
	from := fl.base + r.at
	body, err := fl.c.sources.Open(ctx, fl.info, from, end-r.at)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if body.Start != from || body.End < fl.base+end {
		return errNoRanges
	}
	return fl.copy(body, r, end, func() { silence.Reset(fl.c.cfg.Timeout) })
}

// copy writes what comes to the file, and tells readers of each part.
func (fl *fill) copy(body io.Reader, r *run, end int64, alive func()) error {
	buf := buffers.Get().(*[pieceSize]byte) //nolint:forcetypeassert // the pool has nothing else
	defer buffers.Put(buf)
	for r.at < end {
		n, err := body.Read(buf[:min(pieceSize, end-r.at)])
		if n > 0 {
			fl.c.count.bytesSource.Add(int64(n))
			if _, err := fl.file.file.WriteAt(buf[:n], r.at); err != nil {
				return fmt.Errorf("write to the tier: %w", err)
			}
			fl.mu.Lock()
			r.at += int64(n)
			fl.wake()
			fl.mu.Unlock()
			alive()
		}
		if err != nil && r.at < end {
			return short(err)
		}
	}
	return nil
}

// buffers take bytes on their way from a source to a tier.
var buffers = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// short makes an end that came too early an error.
func short(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// isGone tells whether an error says that the file is not there.
func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
