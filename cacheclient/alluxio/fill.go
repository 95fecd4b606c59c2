package alluxio

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

const (
	// noRoomFor is how long a worker that refused a block is not asked to take it again.
	noRoomFor = 10 * time.Second
	// bringing is how much may be on its way into workers at once, in MiB, and at least and at most what one block counts
	// for: a few large blocks or many small ones, whose commits take longer than they do. bringPatience is how long a
	// reader waits for that; one who waited longer reads past the workers.
	bringing, leastBring, mostBring = 256, 4, 64
	bringPatience                   = 2 * time.Second
	// commitPatience bounds the worker's last step.
	commitPatience = 10 * time.Second
)

// fill is a cold block on its way from the source into a tier of this machine: the worker makes the file, this process
// writes it by parallel ranges, and readers have the bytes as they come. The source is read once, whoever reads
// what. When all is here the worker makes it a block; before that nobody else sees it, and should this process
// die, the worker drops it.
//
// A worker takes some milliseconds to make the file. The first request to the source does not wait for that: its bytes
// go into memory, and from there to the first reader, until there is a file.
type fill struct {
	c      *Client
	id     int64
	length int64
	// base is where the block begins in the file, info the version in the source.
	base int64
	// source is the key of the source that it is in.
	source int64
	info   cacheclient.Info
	// block is what the worker made; it belongs to the goroutine that finishes the fill.
	block *rpc.LocalBlock
	ctx   context.Context
	end   context.CancelFunc
	// ready is closed when there is a file.
	ready chan struct{}
	// ended is closed when the fill has ended.
	ended chan struct{}

	// mu guards the rest.
	mu sync.Mutex
	// file is the temporary block, mapped; a reference is the fill's until its end. head is the first request where that
	// need not wait for the file, and early what it brought before there was one: nothing of that is ever overwritten.
	file  *blockFile
	head  *run
	early []byte
	// hasty says that there may be a head: where a worker could have the block after all, or no room for it, its bytes
	// would come in vain.
	hasty bool
	// changed is closed, and made anew, when anything below changes.
	changed chan struct{}
	state   []pieceState
	left    int
	runs    []*run
	// cursor is the piece at which background requests go on: behind what was asked for last.
	cursor  int
	started bool
	err     error
	// over says that the fill has ended.
	over bool
}

// pieceState is what is known of a piece.
type pieceState uint8

const (
	absent pieceState = iota
	coming
	here
)

func pieces(length int64) int { return int((length + pieceSize - 1) / pieceSize) }

// filling is the fill of a block, nil where there is none.
func (c *Client) filling(id int64) *fill {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fills[id]
}

var (
	errNoFill  = errors.New("the block is not filled by this process")
	errOver    = fmt.Errorf("%w any more", errNoFill)
	errNotMade = errors.New("the worker made no file for the block")
)

// fillOf is the fill of a block, which is started where there is none.
func (c *Client) fillOf(ctx context.Context, f *file, k int, info cacheclient.Info) (*fill, error) {
	id := f.l.block(k)
	fl, err, _ := c.flight.Do("fill "+strconv.FormatInt(id, 10), func() (any, error) {
		if fl := c.filling(id); fl != nil {
			return fl, nil
		}
		return c.startFill(ctx, f, k, info)
	})
	if err != nil {
		return nil, err
	}
	return fl.(*fill), nil //nolint:forcetypeassert // as it was returned
}

// startFill makes the fill of a block and starts it.
func (c *Client) startFill(ctx context.Context, f *file, k int, info cacheclient.Info) (*fill, error) {
	id, length := f.l.block(k), f.l.length(k)
	w, room, err := c.filler(ctx, id, length)
	if err != nil {
		return nil, err
	}
	weight, err := c.mayBring(ctx, length)
	if err != nil {
		return nil, err
	}
	fl := &fill{
		c: c, id: id, length: length, base: int64(k) * f.l.blockSize, info: info, source: c.sources.key(info.Path),
		hasty: room && c.surelyCold(id), ready: make(chan struct{}), changed: make(chan struct{}),
		ended: make(chan struct{}),
		state: make([]pieceState, pieces(length)), left: pieces(length),
	}
	fl.ctx, fl.end = context.WithCancel(c.life)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		fl.end()
		c.bringing.Release(weight)
		return nil, cacheclient.ErrClosed
	}
	c.fills[id] = fl
	c.work.Add(1)
	go func() {
		defer c.work.Done()
		defer c.bringing.Release(weight)
		fl.run(w)
	}()
	return fl, nil
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

// filler is the worker that is to have a block, if it is of this machine: the first that has room for it, as whoever
// reads a block once reads it again; without room, the one that all clients agree on, so that the blocks of a full
// worker are not pushed out while another one is empty. room says that the worker has room as far as is known.
func (c *Client) filler(ctx context.Context, id, length int64) (w *rpc.Worker, room bool, err error) {
	here := c.local.all()
	if len(here) == 0 || length > mostMapped || !c.mayTake(id) {
		return nil, false, errNoFill
	}
	capacity := c.Capacity()
	for _, w := range here {
		if !w.Broken() && (w.Capacity() == 0 || length <= w.Capacity()) && hasRoom(capacity, w.Addr(), length) {
			return w, true, nil
		}
	}
	ranked, err := c.rank(ctx, id, length)
	if err != nil || len(ranked) == 0 || !c.local.is(ranked[0]) || ranked[0].Broken() {
		return nil, false, errNoFill
	}
	return ranked[0], false, nil
}

// hasRoom reports whether a worker has room for so many bytes and a twentieth of its tier besides. Before the masters
// have told of any, it has: a worker refuses what it cannot take.
func hasRoom(c cacheclient.Capacity, worker string, length int64) bool {
	for _, l := range c.Levels {
		if l.Where == worker {
			return l.Used+length <= l.Quota-l.Quota/20
		}
	}
	return len(c.Levels) == 0
}

// run has the file made, waits until all pieces are here, or none will come, and makes the file a block.
func (fl *fill) run(w *rpc.Worker) {
	err := fl.create(w)
	made := err == nil
	if made {
		err = fl.wait()
	} else {
		err = fmt.Errorf("%w: %w", errNotMade, err)
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(fl.ctx, commitPatience)
		err = fl.block.Commit(ctx)
		cancel()
	}
	if err == nil {
		fl.c.arrived(fl.id)
	}
	failed := err != nil && (!made || !errors.Is(err, context.Canceled))
	if failed && (made || !fl.c.brought.was(fl.id)) {
		// Before readers learn that they have to look elsewhere.
		fl.c.refused.first(fl.id, noRoomFor)
	}
	fl.finish(err)
	if failed && made {
		fl.c.log.Info("a block was not cached", "path", fl.info.Path, "block", fl.id, "error", err)
	}
}

// finish ends the fill, and drops what did not become a block.
func (fl *fill) finish(err error) {
	file := fl.close(err)
	fl.c.noFill(fl.id)
	fl.end()
	if fl.block != nil {
		fl.block.Abort()
	}
	if file != nil {
		file.release()
	}
}

// close ends all reading from the fill, and returns its file, whose reference the caller has now.
func (fl *fill) close(err error) *blockFile {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.err == nil {
		fl.err = err
	}
	fl.over = true
	close(fl.ended)
	fl.wake()
	return fl.file
}

// noFill forgets the fill of a block.
func (c *Client) noFill(id int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.fills, id)
}

// arrived has all who take a block for one that nobody has look again: it has been brought.
func (c *Client) arrived(id int64) {
	c.places.forget(id)
	c.bad.forget(id)
	c.brought.first(id, placeAge)
}

// wait returns when all pieces are here, or with why they will not come.
func (fl *fill) wait() error {
	for {
		left, changed, err := fl.missing()
		if err != nil || left == 0 {
			return err
		}
		select {
		case <-changed:
		case <-fl.ctx.Done():
			return fl.ctx.Err()
		}
	}
}

// missing is how many pieces are not here, and what to wait for.
func (fl *fill) missing() (left int, changed <-chan struct{}, err error) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.left, fl.changed, fl.err
}

// wake tells all who wait; mu is held.
func (fl *fill) wake() {
	close(fl.changed)
	fl.changed = make(chan struct{})
}

// read lends a span as soon as it is here, after asking for it.
func (fl *fill) read(ctx context.Context, s span) (cacheclient.Data, error) {
	for {
		d, changed, err := fl.look(s)
		switch {
		case err != nil:
			return d, err
		case changed == nil:
			// Now that somebody has what he waited for, the rest may come.
			fl.goOn()
			return d, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			// What was begun is brought to its end all the same.
			fl.goOn()
			return cacheclient.Data{}, fmt.Errorf("read %q: %w", fl.info.Path, ctx.Err())
		}
	}
}

// look lends a span if it is here, and else asks for it and tells what to wait for.
func (fl *fill) look(s span) (d cacheclient.Data, changed <-chan struct{}, err error) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	switch {
	case fl.has(s.off, s.off+s.n):
		return fl.lend(s), nil, nil
	case fl.err != nil:
		return d, nil, fmt.Errorf("%w: %w", errNoFill, fl.err)
	case fl.over:
		return d, nil, errOver
	}
	fl.demand(s.off, s.off+s.n)
	return d, fl.changed, nil
}

// lend lends a span that is here; mu is held.
func (fl *fill) lend(s span) cacheclient.Data {
	if fl.file == nil {
		from := s.off - int64(fl.head.first)*pieceSize
		return cacheclient.Data{Parts: [][]byte{fl.early[from : from+s.n : from+s.n]}, Origin: cacheclient.OriginSource}
	}
	file := fl.file.retain()
	return cacheclient.Data{
		Parts: [][]byte{file.bytes(s.off, s.n)}, Free: file.release,
		Origin: cacheclient.OriginSource,
	}
}

// has reports whether the bytes [from, to) are here; mu is held. It is never true once the fill is over, when the
// file's reference is given back.
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
			if r == nil || r.shown() < min(to, int64(p+1)*pieceSize, fl.length) {
				return false
			}
		case here:
		}
	}
	return true
}
