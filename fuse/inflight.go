package fuse

import (
	"context"
	"sync"
	"time"
)

const (
	// interruptPatience is how long a request whose caller was interrupted may go on, where the caller is not dying.
	interruptPatience = 5 * time.Second
	// interruptLook is how often the caller is looked at meanwhile.
	interruptLook = 50 * time.Millisecond
)

// call is one request that may wait.
type call struct {
	op uint32
	// caller is the thread that asked, 0 where it is not known.
	caller uint32
	start  time.Time
	ctx    context.Context
	cancel context.CancelFunc
	// interrupted says that an INTERRUPT came, and ended that the request was given up for it; guarded by inflight.mu.
	interrupted, ended bool
}

// inflight holds the requests that may wait, so that INTERRUPT finds them.
//
// The kernel sends INTERRUPT for any signal of the caller, also for one that it handles or that only stops it for a
// moment: a timer, a child's end, a window's new size. open(2) and stat(2) would fail with EINTR, which few programs
// expect of them, wherever the source is slower than the timer. So a request is given up only when its caller is dying,
// when a second INTERRUPT comes, or when the first one was a while ago.
//
// The kernel may send INTERRUPT as soon as a worker has read the request, and another worker
// may see it before the request is in here. It is then answered with EAGAIN, upon which
// the kernel queues it again while the request is unanswered.
// D-171 says why.
type inflight struct {
	// base is the parent of all contexts; the session cancels it at its end.
	base context.Context
	// dying reports whether a caller is being killed, or gone; patience is how long others are let wait.
	dying    func(caller uint32) bool
	patience time.Duration
	// watching counts the goroutines that look at interrupted callers. Each ends with its request.
	watching sync.WaitGroup

	// mu guards calls, and what in them may change.
	mu    sync.Mutex
	calls map[uint64]*call
}

func newInflight(base context.Context, patience time.Duration) *inflight {
	return &inflight{
		base: base, dying: func(uint32) bool { return false },
		patience: orDefault(patience, interruptPatience), calls: make(map[uint64]*call),
	}
}

// begin registers a request.
func (f *inflight) begin(h inHeader) *call {
	c := &call{op: h.op, caller: h.caller, start: time.Now()}
	c.ctx, c.cancel = context.WithCancel(f.base)
	f.mu.Lock()
	f.calls[h.unique] = c
	f.mu.Unlock()
	return c
}

// end takes the request out and frees its context.
func (f *inflight) end(c *call, unique uint64) {
	f.mu.Lock()
	delete(f.calls, unique)
	f.mu.Unlock()
	c.cancel()
}

// interrupt notes an INTERRUPT for the request, and reports whether the request is in here.
func (f *inflight) interrupt(unique uint64) bool {
	f.mu.Lock()
	c := f.calls[unique]
	again := c != nil && c.interrupted
	if c != nil {
		c.interrupted = true
	}
	f.mu.Unlock()
	switch {
	case c == nil:
		return false
	case again || f.dying(c.caller):
		f.giveUp(c)
	default:
		f.watching.Go(func() { f.watch(c) })
	}
	return true
}

// watch gives an interrupted request up once its caller is dying or patience is over, unless it ends before.
func (f *inflight) watch(c *call) {
	patience := time.NewTimer(f.patience)
	defer patience.Stop()
	look := time.NewTicker(interruptLook)
	defer look.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-patience.C:
			f.giveUp(c)
			return
		case <-look.C:
			if f.dying(c.caller) {
				f.giveUp(c)
				return
			}
		}
	}
}

// giveUp ends the wait of a request whose caller wants no answer.
func (f *inflight) giveUp(c *call) {
	f.mu.Lock()
	c.ended = true
	f.mu.Unlock()
	c.cancel()
}

// gaveUp reports whether the request was given up for an INTERRUPT: nothing else is answered with EINTR.
func (f *inflight) gaveUp(c *call) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return c != nil && c.ended
}

// context is the context of the request.
func (f *inflight) context(unique uint64) context.Context {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, ok := f.calls[unique]; ok {
		return c.ctx
	}
	return f.base
}

// oldest is the number of requests in here, and the op and age of the one that has waited
// longest.
func (f *inflight) oldest() (count int, op uint32, age time.Duration) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if d := now.Sub(c.start); d >= age {
			op, age = c.op, d
		}
	}
	return len(f.calls), op, age
}

// mayWait reports whether requests of this kind ask the client, and so may wait.
func mayWait(op uint32) bool {
	switch op {
	case opLookup, opGetAttr, opOpen, opRead, opOpenDir, opReadDir, opReadDirPlus:
		return true
	}
	return false
}
