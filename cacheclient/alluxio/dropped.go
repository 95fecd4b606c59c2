package alluxio

import (
	"context"
	"time"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

// afterDrop is how long a block that a worker dropped is not brought into one again. The worker tells the masters with
// its next heartbeat (alluxio.worker.block.heartbeat.interval, 1 s), and they take that for the copy which it has by
// then: it would have the block, refuse to take it again, and no master would know (seen with 2.9.6). D-051 says why.
const afterDrop = 1500 * time.Millisecond

// dropped notes that a worker, which the masters say has a block, has it no more.
func (c *Client) dropped(id int64, w *rpc.Worker) {
	c.places.without(id, w)
	c.gone.first(id, afterDrop)
}

// mayTake reports whether a worker may be asked to take a block.
func (c *Client) mayTake(id int64) bool { return !c.refused.was(id) && !c.gone.was(id) }

// awaitReported waits until masters have heard that a block was dropped, if one was.
func (c *Client) awaitReported(ctx context.Context, id int64) bool {
	wait := c.gone.left(id)
	return wait <= 0 || sleep(ctx, wait)
}

// dropUnknown has workers drop a block that they have and the masters do not know of, so that it can be brought again.
func (f *file) dropUnknown(ctx context.Context, k int) {
	id := f.l.block(k)
	workers, err := f.c.rank(ctx, id, f.l.length(k))
	if err != nil {
		return
	}
	for _, w := range workers {
		ask, cancel := context.WithTimeout(ctx, openPatience)
		if w.Remove(ask, id) == nil {
			f.c.log.Info("a worker has dropped a block that the masters did not know of", "worker", w.Addr(), "block",
				id)
			f.c.dropped(id, w)
		}
		cancel()
	}
}
