package alluxio

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// maxHeld bounds the block files that one client keeps open for nobody, and maxHeldByAll those of all clients of the
	// process: they are descriptors, and their pages are memory that a worker does not know of once it has evicted them.
	maxHeld      = 256
	maxHeldByAll = 512
	// heldIdle is how long one is kept that nobody reads. A worker learns of a use when the file is asked for, so this is
	// also how often a block that is read now and then is kept from looking idle to it.
	heldIdle = 30 * time.Second
	// sweepEvery is how often those are looked for, and those that a worker has dropped.
	sweepEvery = 5 * time.Second
)

// heldByAll counts the block files that the clients of this process keep open.
var heldByAll atomic.Int64

// held are the block files of this machine that are open, by block id.
// D-049 says why.
type held struct {
	// mu guards the rest.
	mu sync.Mutex
	// lru has a reference to each of its files.
	lru *simplelru.LRU[int64, *blockFile]
	// over says that nobody would let go of them any more.
	over bool
}

func newHeld() (*held, error) {
	h := &held{}
	var err error
	h.lru, err = simplelru.NewLRU(maxHeld, func(_ int64, b *blockFile) {
		heldByAll.Add(-1)
		b.release()
	})
	return h, err
}

// get returns a reference to an open block, nil if it is not held.
func (h *held) get(id int64) *blockFile {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, ok := h.lru.Get(id)
	if !ok {
		return nil
	}
	b.touch()
	return b.retain()
}

// put keeps a reference to a block, beside the caller's own.
func (h *held) put(b *blockFile) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.lru.Peek(b.id); ok || h.over {
		return
	}
	heldByAll.Add(1)
	h.lru.Add(b.id, b.retain())
	for heldByAll.Load() > maxHeldByAll && h.lru.Len() > 1 {
		h.lru.RemoveOldest()
	}
}

// drop lets go of a block.
func (h *held) drop(id int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lru.Remove(id)
}

// sweep lets go of what was not used for heldIdle, and at once of what the worker has dropped or another process has
// cut.
func (h *held) sweep(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range h.lru.Keys() {
		b, ok := h.lru.Peek(id)
		if ok && (now.Sub(time.Unix(0, b.used.Load())) > heldIdle || b.spent()) {
			h.lru.Remove(id)
		}
	}
}

// run sweeps until the context ends, and then lets go of everything.
func (h *held) run(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			h.sweep(now)
		case <-ctx.Done():
			h.mu.Lock()
			defer h.mu.Unlock()
			h.over = true
			h.lru.Purge()
			return
		}
	}
}

// count is how many are held.
func (h *held) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lru.Len()
}
