package fuse

import (
	"context"
	"sync"
	"time"
)

// call is one request that may wait.
type call struct {
	op     uint32
	start  time.Time
	ctx    context.Context
	cancel context.CancelFunc
}

// inflight holds the requests that may wait, so that INTERRUPT finds them.
//
// The kernel may send INTERRUPT as soon as a worker has read the request, and another worker
// may see it before the request is in here. It is then answered with EAGAIN, upon which
// the kernel queues it again while the request is unanswered.
type inflight struct {
	// base is the parent of all contexts; the session cancels it at its end.
	base context.Context

	// mu guards calls.
	mu    sync.Mutex
	calls map[uint64]*call
}

// begin registers a request under its unique.
func (f *inflight) begin(op uint32, unique uint64) *call {
	c := &call{op: op, start: time.Now()}
	c.ctx, c.cancel = context.WithCancel(f.base)
	f.mu.Lock()
	f.calls[unique] = c
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

// interrupt cancels the request; it tells whether the request is in here.
func (f *inflight) interrupt(unique uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.calls[unique]
	if ok {
		c.cancel()
	}
	return ok
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

// mayWait tells whether requests of this kind ask the client, and so may wait.
func mayWait(op uint32) bool {
	switch op {
	case opLookup, opOpen, opRead, opOpenDir, opReadDir, opReadDirPlus:
		return true
	}
	return false
}
