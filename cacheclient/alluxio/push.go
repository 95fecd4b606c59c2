package alluxio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

const (
	// pushPiece is how much of a block is read from the source and given to a worker at a time, in bytes.
	pushPiece = 1 << 20
	// lead is how far a push and the reader of the same block may be apart, in bytes: what lies between is in the
	// memory of the direct reads, and comes from the source once.
	lead = 8 << 20
	// readerIdle is how long a push waits for a reader that has stopped, and pushIdle a reader for a push.
	readerIdle = time.Second
	pushIdle   = 500 * time.Millisecond
)

// push is a cold block on its way from the source to a worker of another machine, through this process. It reads what
// readers of the block read, at their pace while they go through it, so that the source is read once.
// D-046 says why.
type push struct {
	ended chan struct{}

	// mu guards the rest.
	mu sync.Mutex
	// changed is closed, and made anew, when anything below changes.
	changed chan struct{}
	// pushed is up to where the worker has the block, read up to where a reader has gone through it, in bytes, and readAt
	// when.
	pushed, read int64
	readAt       time.Time
	err          error
}

// wake has those that wait look again; mu is held.
func (p *push) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// pushFor begins to push a cold block, or joins the push that is under way; nil where there is none.
func (c *Client) pushFor(ctx context.Context, f *file, k int, info cacheclient.Info) *push {
	id := f.l.block(k)
	p := c.pushing(id)
	if p != nil || !c.mayTake(id) {
		return p
	}
	weight, err := c.mayBring(ctx, f.l.length(k))
	if err != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.pushes[id]; p != nil || c.closed {
		c.bringing.Release(weight)
		return p
	}
	p = &push{ended: make(chan struct{}), changed: make(chan struct{}), readAt: time.Now()}
	c.pushes[id] = p
	c.work.Add(1)
	go func() {
		defer c.work.Done()
		defer c.bringing.Release(weight)
		err := c.push(p, f.l, k, info)
		if err != nil && c.life.Err() == nil {
			c.refused.first(id, noRoomFor)
			c.log.Info("a block was not cached", "path", info.Path, "block", id, "error", err)
		}
		c.noPush(id)
		p.end(err)
	}()
	return p
}

// pushing is the push of a block, nil where there is none.
func (c *Client) pushing(id int64) *push {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pushes[id]
}

// noPush forgets the push of a block.
func (c *Client) noPush(id int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pushes, id)
}

// end tells all waiters how the push ended.
func (p *push) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
	p.wake()
	close(p.ended)
}

// push gives the block to the worker that should have it.
func (c *Client) push(p *push, l layout, k int, info cacheclient.Info) error {
	ctx, cancel := context.WithTimeout(c.life, c.cfg.Timeout)
	defer cancel()
	id, length := l.block(k), l.length(k)
	workers, err := c.rank(ctx, id, length)
	if err != nil {
		return err
	}
	if len(workers) == 0 {
		return &rpc.Unreachable{Addr: c.cfg.Address.String(), Why: "has no worker that could hold the block"}
	}
	from, err := c.direct.Open(ctx, info)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	to, err := workers[0].WriteBlock(ctx, id, length)
	if errors.Is(err, fs.ErrExist) {
		// It has it, whatever the masters know.
		c.places.put(id, place{workers: workers[:1], at: time.Now()})
	}
	if err != nil {
		return err
	}
	defer to.Abort()
	for off := int64(0); off < length; off += pushPiece {
		if err := p.awaitReader(c.life, off); err != nil {
			return err
		}
		n := min(pushPiece, length-off)
		if err := pushPart(c.life, from, to, int64(k)*l.blockSize+off, n); err != nil {
			return fmt.Errorf("give block %d to %s: %w", id, workers[0].Addr(), err)
		}
		p.advance(off + n)
	}
	commit, cancel := context.WithTimeout(c.life, commitPatience)
	defer cancel()
	if err = to.Commit(commit); err == nil {
		c.arrived(id)
	}
	return err
}

// advance notes up to where the worker has the block.
func (p *push) advance(pushed int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pushed = pushed
	p.wake()
}

// pushPart moves one part.
func pushPart(ctx context.Context, from cacheclient.File, to *rpc.BlockWriter, off, n int64) error {
	d, err := from.Read(ctx, off, int(n))
	if err != nil {
		return err
	}
	defer d.Release()
	if int64(d.Len()) != n {
		return fmt.Errorf("the source has %d bytes where the version has %d: %w", d.Len(), n, cacheclient.ErrStale)
	}
	for _, part := range d.Parts {
		if _, err := to.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// awaitReader waits while a reader that is at work is far behind off.
func (p *push) awaitReader(ctx context.Context, off int64) error {
	for {
		near, idle, changed := p.reader(off)
		if near || idle <= 0 {
			return ctx.Err()
		}
		timer := time.NewTimer(idle)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// reader reports whether the reader is near off, and for how long to wait for it and for what.
func (p *push) reader(off int64) (near bool, idle time.Duration, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return off < p.read+lead, time.Until(p.readAt.Add(readerIdle)), p.changed
}

// comes notes that a reader wants a span. It reports whether that need not wait, up to where the worker has the block,
// and what to wait for.
func (p *push) comes(s span) (goes bool, pushed int64, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.off > p.read+lead {
		return true, p.pushed, nil
	}
	p.readAt = time.Now()
	if s.off+s.n > p.read {
		p.read = s.off + s.n
		p.wake()
	}
	return s.off+s.n <= p.pushed+lead || p.err != nil, p.pushed, p.changed
}

// alone has the push wait for no reader: none reads at a pace of its own.
func (p *push) alone() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readAt = time.Time{}
	p.wake()
}

// outcome is how the push ended.
func (p *push) outcome() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// awaitPush has a reader that goes through the block in order wait while the push is far behind him. One that reads
// here and there, or meets a push that makes no progress, waits for nothing.
func (p *push) awaitPush(ctx context.Context, s span) {
	timer := time.NewTimer(pushIdle)
	defer timer.Stop()
	last := int64(-1)
	for {
		goes, pushed, changed := p.comes(s)
		if goes {
			return
		}
		if pushed != last {
			last = pushed
			timer.Reset(pushIdle)
		}
		select {
		case <-changed:
		case <-p.ended:
			return
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// awaitPushed waits for the end of a push.
func (p *push) awaitPushed(ctx context.Context) error {
	p.alone()
	select {
	case <-p.ended:
		return p.outcome()
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errNoPush = errors.New("too much is being brought at the same time")
