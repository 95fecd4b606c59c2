package masters

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// Drain is how far the copying away from workers is that are about to go.
type Drain struct {
	// Leaving are the workers that it is about, as in Want.
	Leaving []string
	// Done says that it has ended: all was copied that there is room for, and the leaving workers have dropped their
	// blocks.
	Done bool
	// Moved blocks are with others now, of the Only ones that the leaving workers alone had.
	Only, Moved int
	MovedBytes  int64
	// Why is the first reason why a block was not copied, "" for none.
	Why string
}

// of reports whether the drain is about these workers.
func (d Drain) of(leaving []string) bool { return d.Leaving != nil && slices.Equal(d.Leaving, leaving) }

// DrainPatience bounds a drain.
const DrainPatience = 10 * time.Minute

// drain copies what only the leaving workers have to others, and tells in the state how far it is.
func (c *Clusters) drain(ctx context.Context, cl *cluster) {
	ctx, cancel := context.WithTimeout(ctx, DrainPatience)
	defer cancel()
	cl.mu.Lock()
	want := cl.want
	cl.mu.Unlock()
	d := &drain{at: Drain{Leaving: want.Leaving}}
	d.tell = func(at Drain) {
		cl.mu.Lock()
		cl.state.Drain = at
		cl.mu.Unlock()
	}
	err := d.run(ctx, c, want)
	d.count(func(at *Drain) {
		at.Done = true
		if err != nil && at.Why == "" {
			at.Why = err.Error()
		}
	})
	cl.mu.Lock()
	cl.draining = false
	cl.mu.Unlock()
	c.Notify(cl.key)
}

// drain is one under way.
type drain struct {
	conn *rpc.Cluster
	// stay are the workers that stay.
	stay []*rpc.Worker
	tell func(Drain)

	// mu guards at and room.
	mu sync.Mutex
	at Drain
	// room are the bytes that are free on those that stay.
	room map[*rpc.Worker]int64
	// held are the blocks that leaving workers have.
	held []held
}

// held is a block on a leaving worker.
type held struct {
	worker *rpc.Worker
	id     int64
}

func (d *drain) count(change func(*Drain)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.at)
	d.tell(d.at)
}

// run copies the blocks and drops them. It needs no mu for room before the copies begin.
func (d *drain) run(ctx context.Context, c *Clusters, want Want) error {
	conn, err := connect(want, c.Log)
	if err != nil {
		return err
	}
	defer conn.Release()
	d.conn, d.room = conn, map[*rpc.Worker]int64{}
	infos, err := conn.WorkerInfos(ctx)
	if err != nil {
		return err
	}
	for _, info := range infos {
		worker, err := conn.At(info.GetAddress())
		if err == nil && !leaves(worker, want.Leaving) {
			d.stay = append(d.stay, worker)
			d.room[worker] = info.GetCapacityBytes() - info.GetUsedBytes()
		}
	}
	if len(d.stay) == 0 {
		return errors.New("no worker stays that could take the blocks")
	}
	if err := d.copyAll(ctx, want); err != nil {
		return err
	}
	return d.drop(ctx)
}

// copyAll copies the blocks of all files.
func (d *drain) copyAll(ctx context.Context, want Want) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(blocksOfWorker * len(d.stay))
	for _, m := range want.Mounts {
		file := func(f *wire.FileInfo) error { return d.file(ctx, g, f, want.Leaving) }
		err := eachFile(ctx, d.conn, m.Path, rpc.NeverSync, file, func(_ string, err error) error { return err })
		if err != nil {
			return errors.Join(err, g.Wait())
		}
	}
	return g.Wait()
}

func leaves(w *rpc.Worker, leaving []string) bool {
	host, _, err := net.SplitHostPort(w.Addr())
	return err == nil && slices.Contains(leaving, host)
}

// file has the blocks of a file copied that only leaving workers have, and waits only for a place to begin each.
func (d *drain) file(ctx context.Context, g *errgroup.Group, f *wire.FileInfo, leaving []string) error {
	if f.GetInAlluxioPercentage() == 0 && len(f.GetBlockIds()) > 0 && len(f.GetFileBlockInfos()) > 0 {
		return ctx.Err()
	}
	blocks, err := rpc.BlocksOf(f)
	if err != nil {
		// A file whose numbers cannot be is read by no mount.
		return ctx.Err()
	}
	for k := range blocks.Count() {
		id := blocks.ID(k)
		info, err := d.block(ctx, f, k, id)
		if err != nil {
			return err
		}
		var from *rpc.Worker
		stays := false
		for _, at := range info.GetLocations() {
			worker, err := d.conn.At(at.GetWorkerAddress())
			switch {
			case err != nil:
			case leaves(worker, leaving):
				from = worker
				d.mu.Lock()
				d.held = append(d.held, held{worker, id})
				d.mu.Unlock()
			default:
				stays = true
			}
		}
		if from == nil || stays {
			continue
		}
		d.count(func(at *Drain) { at.Only++ })
		g.Go(func() error { return d.move(ctx, f.GetPath(), info, from) })
	}
	return ctx.Err()
}

// block is what the leader knows of the k-th block of a file, which has this id.
func (d *drain) block(ctx context.Context, f *wire.FileInfo, k int, id int64) (*wire.BlockInfo, error) {
	if k < len(f.GetFileBlockInfos()) {
		if info := f.GetFileBlockInfos()[k].GetBlockInfo(); info.GetBlockId() == id {
			return info, nil
		}
	}
	return d.conn.Block(ctx, id)
}

// move copies one block. One that cannot be copied stays at the source, and holds up no other.
func (d *drain) move(ctx context.Context, path string, info *wire.BlockInfo, from *rpc.Worker) error {
	ctx, cancel := context.WithTimeout(ctx, blockPatience)
	defer cancel()
	to := d.reserve(info)
	if to == nil {
		d.count(func(at *Drain) { because(at, "the workers that stay have no more room") })
		return nil
	}
	err := to.Fetch(ctx, info.GetBlockId(), info.GetLength(), from)
	d.count(func(at *Drain) {
		if err != nil {
			because(at, fmt.Sprintf("%s: %v", path, err))
			return
		}
		at.Moved++
		at.MovedBytes += info.GetLength()
	})
	return nil
}

// because keeps the first reason.
func because(d *Drain, text string) {
	if d.Why == "" {
		d.Why = text
	}
}

// reserve finds a worker with room for a block: what is cached there is worth as much, and is not pushed out for it.
func (d *drain) reserve(info *wire.BlockInfo) *rpc.Worker {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range rpc.Rank(d.stay, info.GetBlockId()) {
		if d.room[w] >= info.GetLength() {
			d.room[w] -= info.GetLength()
			return w
		}
	}
	return nil
}

// drop has the leaving workers remove their blocks, which would stay in their nodes' memory.
func (d *drain) drop(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(blocksOfWorker)
	for _, h := range d.held {
		g.Go(func() error {
			if err := h.worker.Remove(ctx, h.id); err != nil && !rpc.NotCached(err) {
				d.count(func(at *Drain) {
					because(at, fmt.Sprintf("block %d of %s is not dropped: %v", h.id, h.worker.Addr(), err))
				})
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}
