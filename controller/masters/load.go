package masters

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// Target is a file or directory to load, by its path in Alluxio.
type Target struct {
	Path string
	// Replicas is how many workers are to have each block, at least 1.
	Replicas int
}

// Progress is how far a load is.
type Progress struct {
	// Bytes and Files are loaded or were there already, of the total.
	Bytes, BytesTotal int64
	Files, FilesTotal int64
	// Failed files could not be loaded whole, or directories listed; FirstFailure says why not the first of them.
	Failed       int64
	FirstFailure string
}

const (
	// blocksOfWorker is how many blocks each worker reads at a time for a load.
	blocksOfWorker = 4
	// blockPatience bounds the reading of one block, attempts is how often it is tried.
	blockPatience = 10 * time.Minute
	attempts      = 3
)

// ErrUnknown says that the reconciler has not told yet what the Dataset's Alluxio is.
var ErrUnknown = errors.New("the Dataset has no Alluxio yet")

// Load has workers read what is not cached, block by block, from the sources. With metadata, the leader compares what
// it knows with the sources first. progress is called often, by several goroutines, one at a time. A file that cannot
// be loaded, and a directory that cannot be listed, is counted and holds up no other.
func (c *Clusters) Load(
	ctx context.Context, key types.NamespacedName, targets []Target, metadata bool, progress func(Progress),
) error {
	c.mu.Lock()
	cl := c.byKey[key]
	c.mu.Unlock()
	if cl == nil {
		return ErrUnknown
	}
	cl.mu.Lock()
	want := cl.want
	cl.mu.Unlock()
	conn, err := connect(want, c.Log)
	if err != nil {
		return err
	}
	defer conn.Release()
	l := &load{conn: conn, tell: progress}
	for _, t := range targets {
		if metadata {
			if err := conn.Load(ctx, t.Path, rpc.AlwaysSync); endsLoad(ctx, err) {
				return fmt.Errorf("the metadata of %s: %w", t.Path, err)
			}
		}
		err := l.each(ctx, t, func(f *wire.FileInfo) error {
			l.count(func(p *Progress) { p.BytesTotal += f.GetLength(); p.FilesTotal++ })
			return nil
		})
		if err != nil {
			return err
		}
	}
	workers, err := conn.Live(ctx)
	if err != nil || len(workers) == 0 {
		return errors.Join(errors.New("no worker is there to load into"), err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(blocksOfWorker * len(workers))
	for _, t := range targets {
		err := l.each(ctx, t, func(f *wire.FileInfo) error {
			l.file(ctx, g, f, max(t.Replicas, 1))
			return ctx.Err()
		})
		if err != nil {
			return errors.Join(err, g.Wait())
		}
	}
	return g.Wait()
}

// load is one load under way.
type load struct {
	conn *rpc.Cluster
	tell func(Progress)

	// mu guards the rest.
	mu sync.Mutex
	at Progress
	// leftOut are the directories that could not be listed.
	leftOut map[string]bool
}

func (l *load) count(change func(*Progress)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.at)
	l.tell(l.at)
}

// each calls fn for each file of a target that a listing shows.
func (l *load) each(ctx context.Context, t Target, fn func(*wire.FileInfo) error) error {
	return eachFile(ctx, l.conn, t.Path, metadataAge, fn, func(dir string, err error) error {
		if dir == t.Path || endsLoad(ctx, err) {
			return err
		}
		l.leaveOut(dir, err)
		return nil
	})
}

// leaveOut counts a directory that cannot be listed, once.
func (l *load) leaveOut(dir string, err error) {
	if !l.first(dir) {
		return
	}
	l.count(func(p *Progress) {
		p.Failed++
		if p.FirstFailure == "" {
			p.FirstFailure = dir + " cannot be listed: " + err.Error()
		}
	})
}

// first reports whether a directory was not left out before, and notes that it is.
func (l *load) first(dir string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leftOut == nil {
		l.leftOut = make(map[string]bool)
	}
	known := l.leftOut[dir]
	l.leftOut[dir] = true
	return !known
}

// endsLoad reports whether an error is none of one path: the load was given up, or no master answers.
func endsLoad(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || errors.Is(err, cacheclient.ErrUnavailable) &&
		!errors.Is(err, rpc.ErrRefused))
}

// eachFile calls fn for the file at root, or for each file below it. age is how old the leader's knowledge may be.
// unlisted is called with each directory that cannot be listed, and returns the error that ends the walk, if it is to.
func eachFile(ctx context.Context, conn *rpc.Cluster, root string, age time.Duration, fn func(*wire.FileInfo) error,
	unlisted func(dir string, err error) error,
) error {
	info, err := conn.Status(ctx, root, age)
	if err != nil {
		return err
	}
	info.Path = &root
	if !info.GetFolder() {
		return fn(info)
	}
	queue, seen := []*wire.FileInfo{info}, make(map[int64]bool)
	for len(queue) > 0 {
		dir := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		files, below, err := []*wire.FileInfo(nil), []*wire.FileInfo(nil), errLoop
		if id := dir.GetFileId(); !seen[id] && len(dir.GetPath()) <= longestPath {
			seen[id] = dir.FileId != nil
			files, below, err = entries(ctx, conn, dir.GetPath(), age)
		}
		if err != nil {
			if err := unlisted(dir.GetPath(), err); err != nil {
				return err
			}
			continue
		}
		for _, f := range files {
			if err := fn(f); err != nil {
				return err
			}
		}
		queue = append(queue, below...)
	}
	return nil
}

// longestPath bounds how deep a walk goes: no file system shows a longer path.
const longestPath = 4096

// errLoop is a directory below itself, or deeper than a directory can be.
var errLoop = errors.New("it is below itself, or too deep")

// entries are the files of a directory, and the directories in it, by the path that their names give them: another one
// that a master tells would lead anywhere.
func entries(ctx context.Context, conn *rpc.Cluster, dir string, age time.Duration) (
	files, below []*wire.FileInfo, err error,
) {
	restart := func() error {
		files, below = nil, nil
		return nil
	}
	err = conn.List(ctx, dir, age, restart, func(f *wire.FileInfo) error {
		at := path.Join(dir, f.GetName())
		f.Path = &at
		if f.GetFolder() {
			below = append(below, f)
		} else {
			files = append(files, f)
		}
		return nil
	})
	return files, below, err
}

// file has all blocks of a file loaded, and waits only for a place to begin each. One whose numbers cannot be has
// failed.
func (l *load) file(ctx context.Context, g *errgroup.Group, f *wire.FileInfo, replicas int) {
	blocks, err := rpc.BlocksOf(f)
	left := 0
	if err == nil {
		left = blocks.Count()
	}
	var failure error
	var mu sync.Mutex // guards left and failure
	done := func(length int64, err error) {
		mu.Lock()
		left--
		failure = errors.Join(failure, err)
		last, result := left <= 0, failure
		mu.Unlock()
		l.count(func(p *Progress) {
			if err == nil {
				p.Bytes += length
			}
			switch {
			case !last:
			case result == nil:
				p.Files++
			default:
				p.Failed++
				if p.FirstFailure == "" {
					p.FirstFailure = f.GetPath() + ": " + result.Error()
				}
			}
		})
	}
	if left == 0 {
		done(0, err)
		return
	}
	for k := range blocks.Count() {
		id, length, under := blocks.ID(k), blocks.LengthOf(k), blocks.UnderStore(k, f)
		g.Go(func() error {
			done(length, l.block(ctx, id, length, under, replicas))
			return nil
		})
	}
}

// block has workers read a block until enough of them have it. One that could not is asked again only where there is no
// other: a master lists a worker that is gone for minutes.
func (l *load) block(ctx context.Context, id, length int64, under rpc.UnderStore, replicas int) error {
	ctx, cancel := context.WithTimeout(ctx, blockPatience)
	defer cancel()
	var last error
	tried := map[*rpc.Worker]bool{}
	for range attempts {
		missing, err := l.missing(ctx, id, replicas, tried)
		if err != nil {
			last = err
			continue
		}
		if len(missing) == 0 {
			return nil
		}
		for _, w := range missing {
			if err := w.Cache(ctx, id, length, under, false); err != nil {
				last, tried[w] = err, true
			}
		}
	}
	if missing, err := l.missing(ctx, id, replicas, tried); err == nil && len(missing) == 0 {
		return nil
	}
	if last == nil {
		last = errors.New("no worker has kept it; the tiers may be full")
	}
	return last
}

// missing are the workers that should get the block. Those that were tried, or have failed often, come in only where
// there are no others.
func (l *load) missing(ctx context.Context, id int64, replicas int, tried map[*rpc.Worker]bool) ([]*rpc.Worker, error) {
	info, err := l.conn.Block(ctx, id)
	if err != nil {
		return nil, err
	}
	has := map[*rpc.Worker]bool{}
	for _, at := range info.GetLocations() {
		if w, err := l.conn.At(at.GetWorkerAddress()); err == nil {
			has[w] = true
		}
	}
	live, err := l.conn.Live(ctx)
	if err != nil {
		return nil, err
	}
	usable := slices.DeleteFunc(slices.Clone(live), func(w *rpc.Worker) bool {
		return !has[w] && (tried[w] || w.Broken())
	})
	if len(usable) == 0 {
		usable = live
	}
	var missing []*rpc.Worker
	for _, w := range rpc.Rank(usable, id) {
		if len(has)+len(missing) >= min(replicas, len(usable)) {
			break
		}
		if !has[w] {
			missing = append(missing, w)
		}
	}
	return missing, nil
}
