package alluxio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/alluxio/wire"
)

const (
	// freePatience is how long Free waits for workers to drop blocks; they do with their next heartbeats. One that has not
	// after freeByHand is told so by us: a block that a worker has dropped once before may stay, because AsyncBlockRemover
	// of Alluxio 2.9 can take it for one that it is removing for ever.
	freePatience = 10 * time.Second
	// freeEach is how much longer for each block.
	freeEach   = 5 * time.Millisecond
	freeByHand = time.Second
	freeAgain  = 50 * time.Millisecond
)

// Free implements cacheclient.Client. The masters drop a whole tree in one call; where something of it is open here,
// what is not is dropped file by file.
func (c *Client) Free(ctx context.Context, path string) (int64, error) {
	c.measure(ctx)
	usedBefore := c.Capacity().Used
	before, err := c.cachedIn(ctx, path)
	if err != nil {
		return 0, err
	}
	var freed int64
	var ids []int64
	for p, size := range before {
		if !c.isOpen(p) {
			freed += size.bytes
			ids = append(ids, size.blocks...)
		}
	}
	if c.openBelow(path) == 0 {
		err = c.cluster.Free(ctx, c.store.absolute(path), false)
	} else {
		for p := range before {
			if !c.isOpen(p) {
				err = errors.Join(err, c.cluster.Free(ctx, c.store.absolute(p), false))
			}
		}
	}
	if err != nil {
		return 0, fmt.Errorf("free %q: %w", path, err)
	}
	for _, id := range ids {
		c.held.drop(id)
		c.places.forget(id)
	}
	if err := c.awaitFreed(ctx, path, ids); err != nil {
		return freed, err
	}
	c.awaitUse(context.WithoutCancel(ctx), func(used int64) bool { return used <= max(usedBefore-freed, 0) })
	return freed, nil
}

// cachedFile is what workers have of a file.
type cachedFile struct {
	// bytes counts each block once, however many workers have it.
	bytes  int64
	blocks []int64
}

// cachedIn is what is cached of a file or a tree, by path.
func (c *Client) cachedIn(ctx context.Context, path string) (map[string]cachedFile, error) {
	found := make(map[string]cachedFile)
	err := c.walk(ctx, path, func(p string, f *wire.FileInfo) {
		var sum cachedFile
		l, ok := layoutOf(infoOf(f, p))
		if !ok {
			return
		}
		for k, at := range l.told(f) {
			if len(at) > 0 {
				sum.bytes += l.length(k)
				sum.blocks = append(sum.blocks, l.block(k))
			}
		}
		if sum.bytes > 0 {
			found[p] = sum
		}
	})
	return found, err
}

const (
	// longestPath is how deep a tree is walked, in bytes of a path, and mostWalked how many directories it has at
	// most: one that holds itself has no end.
	longestPath = 4096
	mostWalked  = 1 << 20
)

// walk calls fn for the file, or each file of the tree, as the masters know it, without asking the source.
// Directories that cannot be listed are left out, and named in the log.
func (c *Client) walk(ctx context.Context, path string, fn func(string, *wire.FileInfo)) error {
	f, err := c.cluster.Status(ctx, c.store.absolute(path), knownOnly)
	if err != nil {
		return err
	}
	if !f.GetFolder() {
		fn(path, f)
		return nil
	}
	var leftOut []string
	var why error
	queue := []string{path}
	for n := 0; len(queue) > 0 && n < mostWalked; n++ {
		dir := queue[len(queue)-1]
		below, err := c.walkDir(ctx, dir, fn)
		queue = append(queue[:len(queue)-1], below...)
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist):
			// It is empty, or gone since.
		case ctx.Err() != nil, dir == path, errors.Is(err, cacheclient.ErrUnavailable):
			return err
		default:
			leftOut, why = append(leftOut, dir), err
		}
	}
	if len(leftOut) > 0 {
		c.log.Warn("directories that cannot be listed are left out", "path", path, "directories", len(leftOut), "first",
			leftOut[0], "error", why)
	}
	return nil
}

// walkDir calls fn for each file of a directory, and returns the directories in it.
func (c *Client) walkDir(ctx context.Context, dir string, fn func(string, *wire.FileInfo)) (below []string, err error) {
	err = c.cluster.Names(ctx, c.store.absolute(dir), knownOnly, func() error { return errRestarted },
		func(f *wire.FileInfo) error {
			switch p := join(dir, f.GetName()); {
			case !f.GetFolder():
				fn(p, f)
			case len(p) <= longestPath:
				below = append(below, p)
			}
			return nil
		})
	return below, err
}

// knownOnly has the masters answer from what they know.
const knownOnly = rpc.NeverSync

// isOpen reports whether the path is open through this client.
func (c *Client) isOpen(path string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open[path] > 0
}

// openBelow is how many paths of a tree are open.
func (c *Client) openBelow(path string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for p := range c.open {
		if path == "" || p == path || strings.HasPrefix(p, path+"/") {
			n++
		}
	}
	return n
}

// awaitFreed waits until the masters know that workers have dropped the blocks. One that somebody reads stays until he
// has ended, and is not waited for longer than freePatience.
func (c *Client) awaitFreed(ctx context.Context, path string, ids []int64) error {
	waiting, cancel := context.WithTimeout(ctx, freePatience+time.Duration(len(ids))*freeEach)
	defer cancel()
	for begin := time.Now(); len(ids) > 0; {
		info, err := c.cluster.Block(waiting, ids[0])
		switch {
		case noSuchBlock(err), err == nil && len(info.GetLocations()) == 0:
			ids = ids[1:]
			continue
		case ctx.Err() != nil:
			return fmt.Errorf("free %q: %w", path, ctx.Err())
		case err != nil && waiting.Err() == nil && !errors.Is(err, cacheclient.ErrUnavailable):
			return fmt.Errorf("free %q: %w", path, err)
		}
		if time.Since(begin) > freeByHand {
			c.dropAt(waiting, ids[0], info.GetLocations())
		}
		if !sleep(waiting, freeAgain) {
			c.log.Warn("workers have not dropped all blocks yet", "path", path, "blocks", len(ids))
			break
		}
	}
	return nil
}

// dropAt has workers drop a block. One that somebody reads at the moment they do not.
func (c *Client) dropAt(ctx context.Context, id int64, at []*wire.BlockLocation) {
	ctx, cancel := context.WithTimeout(ctx, freeByHand)
	defer cancel()
	for _, w := range c.workersAt(at) {
		if err := w.Remove(ctx, id); err != nil && !rpc.NotCached(err) {
			c.log.Debug("a worker does not drop a block", "block", id, "error", err)
		}
	}
}

// noSuchBlock reports whether an error of the masters says that they do not know a block: none is cached.
func noSuchBlock(err error) bool {
	return err != nil && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid))
}

// Pin keeps what is cached of a path from eviction, or lets go of it.
func (c *Client) Pin(ctx context.Context, path string, pinned bool) error {
	return c.cluster.Pin(ctx, c.store.absolute(path), pinned)
}

// CachedPercentage is how much of a file, or of all files of a tree, is cached, as the masters tell it: 0 to 100.
func (c *Client) CachedPercentage(ctx context.Context, path string) (int32, error) {
	f, err := c.cluster.Status(ctx, c.store.absolute(path), knownOnly)
	return f.GetInAlluxioPercentage(), err
}
