package alluxio

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

const (
	// localPatience bounds the question to a worker of this machine for a block's file, and quickPatience where its files
	// can be looked for without it.
	localPatience = time.Second
	quickPatience = 200 * time.Millisecond
)

// localBlock returns a reference to a block in a tier of this machine, nil where none has it. All who ask for a block
// at once share one question.
func (c *Client) localBlock(ctx context.Context, id, length int64) *blockFile {
	if b := c.held.get(id); b != nil {
		return b
	}
	workers := c.local.all()
	if len(workers) == 0 || length > mostMapped || c.bad.was(id) {
		return nil
	}
	done := c.flight.DoChan("local "+strconv.FormatInt(id, 10), func() (any, error) {
		if !c.begin() {
			return nil, nil
		}
		defer c.work.Done()
		for _, w := range workers {
			if b := c.localAt(c.life, w, id, length); b != nil {
				c.held.put(b)
				b.release()
				break
			}
		}
		return nil, nil
	})
	select {
	case <-done:
		return c.held.get(id)
	case <-ctx.Done():
		return nil
	}
}

// localAt opens the block's file at one worker of this machine. A worker that does not answer may have died: its tier
// is still there, and a file under the block's name is the block, because workers rename complete ones into place.
// D-050 says why.
func (c *Client) localAt(ctx context.Context, w *rpc.Worker, id, length int64) *blockFile {
	dir := c.local.dir(w)
	if w.Broken() && dir == "" {
		return nil
	}
	path := filepath.Join(dir, strconv.FormatInt(id, 10))
	if !w.Broken() {
		patience := localPatience
		if dir != "" {
			patience = quickPatience
		}
		ask, cancel := context.WithTimeout(ctx, patience)
		located, err := w.Locate(ask, id)
		cancel()
		switch {
		case err == nil:
			path = located
		case rpc.NotCached(err), dir == "":
			return nil
		}
	}
	b, err := openBlockFile(path, id, length)
	switch {
	case err == nil:
		c.local.seen(w, filepath.Dir(path))
		return b
	case errors.Is(err, errDamaged):
		c.damaged(ctx, w, id, err)
	case oursToBlame(err):
		// It is read by gRPC meanwhile.
	case errors.Is(err, fs.ErrNotExist):
		// Evicted since, or the directory is another's: of another mount namespace.
		if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
			c.local.hide(w)
			c.log.Info("the files of a worker of this machine are not to be seen here; it is read by gRPC", "worker",
				w.Addr(), "dir", filepath.Dir(path))
		}
	case errors.Is(err, fs.ErrPermission):
		c.local.hide(w)
		c.log.Warn("the files of a worker of this machine cannot be opened; it is read by gRPC", "worker", w.Addr(),
			"error", err)
	default:
		if c.bad.first(id, badFor) {
			c.log.Warn("the file of a block cannot be opened; it is read by gRPC", "worker", w.Addr(), "block", id,
				"error", err)
		}
	}
	return nil
}

// badFor is how long a block is read otherwise of which a worker has what it should not: one that tells of it again
// and again is not asked each time.
const badFor = 30 * time.Second

// damaged drops a worker's copy of a block that is not what it should be, so that nobody reads it.
func (c *Client) damaged(ctx context.Context, w *rpc.Worker, id int64, why error) {
	c.dropped(id, w)
	if !c.bad.first(id, badFor) {
		return
	}
	c.count.discarded.Add(1)
	c.log.Warn("a worker's copy of a block is damaged and is removed", "worker", w.Addr(), "block", id, "error", why)
	if err := w.Remove(ctx, id); err != nil && !rpc.NotCached(err) {
		c.log.Warn("a damaged block could not be removed", "worker", w.Addr(), "block", id, "error", err)
	}
}
