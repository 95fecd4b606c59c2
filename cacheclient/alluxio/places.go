package alluxio

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/alluxio/wire"
)

const (
	// maxPlaces bounds the blocks whose workers are remembered, and placeAge is how long they are believed.
	maxPlaces = 64 << 10
	placeAge  = 10 * time.Second
	// placePatience bounds the question to the masters where a block is: who reads can do without the answer.
	placePatience = time.Second
	// masterPause is how long the masters are not asked for places after they did not answer.
	masterPause = 2 * time.Second
	// nowhereAge is how long it is believed that no worker has a block, when the masters told that with all else of a file
	// and nobody asked for it: as long as it takes to open a file and begin to read it.
	nowhereAge = 250 * time.Millisecond
	// mostTold is how many blocks of a file are remembered from what the masters told of the file.
	mostTold = 4
)

// place is where a block is cached, as the masters told.
type place struct {
	workers []*rpc.Worker
	at      time.Time
	// unasked says that nobody asked for it.
	unasked bool
}

// fresh reports whether the place is believed.
func (p place) fresh() bool {
	age := placeAge
	if p.unasked && len(p.workers) == 0 {
		age = nowhereAge
	}
	return time.Since(p.at) < age
}

// places are the blocks whose workers are known. What was known stays readable while masters fail over: a new leader
// has no locations until the workers have registered with it.
type places struct {
	// mu guards the rest.
	mu  sync.Mutex
	lru *simplelru.LRU[int64, place]
	// silent is until when the masters are not asked.
	silent time.Time
}

func newPlaces() (*places, error) {
	p := &places{}
	var err error
	p.lru, err = simplelru.NewLRU[int64, place](maxPlaces, nil)
	return p, err
}

func (p *places) get(id int64) (place, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lru.Get(id)
}

func (p *places) put(id int64, now place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lru.Add(id, now)
}

// without notes that a worker does not have a block.
func (p *places) without(id int64, w *rpc.Worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, ok := p.lru.Peek(id); ok {
		known.workers = slices.DeleteFunc(slices.Clone(known.workers), func(o *rpc.Worker) bool { return o == w })
		p.lru.Add(id, known)
	}
}

func (p *places) forget(id int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lru.Remove(id)
}

// mayAsk reports whether the masters are worth asking, and told notes how that went. What they say of one block, and
// that one reader did not wait for it, says nothing of the others.
func (p *places) mayAsk() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().After(p.silent)
}

func (p *places) told(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if errors.Is(err, cacheclient.ErrUnavailable) {
		p.silent = time.Now().Add(masterPause)
	}
}

// notePlaces remembers where a file's blocks are, which the masters tell with all else of a file: whoever opens it next
// need not ask.
func (c *Client) notePlaces(f *wire.FileInfo) {
	l, ok := layoutOf(infoOf(f, ""))
	if !ok || l.blocks() > mostTold {
		return
	}
	for k, at := range l.told(f) {
		c.places.put(l.block(k), place{workers: c.workersAt(at), at: time.Now(), unasked: true})
	}
}

// workersAt are the workers at which a block is, as far as they can be reached.
func (c *Client) workersAt(at []*wire.BlockLocation) []*rpc.Worker {
	var workers []*rpc.Worker
	for _, l := range at {
		if w, err := c.cluster.At(l.GetWorkerAddress()); err == nil && !slices.Contains(workers, w) {
			workers = append(workers, w)
		}
	}
	return workers
}

// surelyCold reports whether the masters said a moment ago that no worker has a block, and this process did not bring
// it into one since.
func (c *Client) surelyCold(id int64) bool {
	known, ok := c.places.get(id)
	return ok && len(known.workers) == 0 && time.Since(known.at) < nowhereAge && !c.brought.was(id)
}

// nowhere reports whether the workers of this machine need not be asked for a block that is cold. A new leader says so
// of everything until the workers have registered with it: the block's file counts more.
func (c *Client) nowhere(id int64) bool { return c.surelyCold(id) && !c.local.inTier(id) }

// cachedAt are the workers that have a block, those that work first and otherwise in an order of chance, so that
// readers spread. What was known some time ago is told at once, and asked for anew beside that: masters that do not
// answer hold up no reader of what is cached.
func (c *Client) cachedAt(ctx context.Context, id int64) []*rpc.Worker {
	known, ok := c.places.get(id)
	switch {
	case ok && known.fresh():
	case len(known.workers) > 0:
		c.askLater(id)
	default:
		if asked, err := c.askPlace(ctx, id); err == nil {
			known = place{workers: asked}
		}
	}
	workers := slices.Clone(known.workers)
	rand.Shuffle(len(workers), func(i, j int) { workers[i], workers[j] = workers[j], workers[i] }) //nolint:gosec // Load is spread.
	slices.SortStableFunc(workers, func(a, b *rpc.Worker) int {
		switch x, y := a.Broken(), b.Broken(); {
		case x == y:
			return 0
		case x:
			return 1
		}
		return -1
	})
	return workers
}

// askLater asks the masters where a block is, and remembers it.
func (c *Client) askLater(id int64) {
	if !c.places.mayAsk() || !c.begin() {
		return
	}
	go func() {
		defer c.work.Done()
		_, _, _ = c.flight.Do("place "+strconv.FormatInt(id, 10), func() (any, error) {
			return c.askPlace(c.life, id)
		})
	}()
}

var errSilent = errors.New("the masters did not answer a moment ago")

// askPlace asks the masters where a block is. One that nobody has cached yet is not known to them.
func (c *Client) askPlace(ctx context.Context, id int64) ([]*rpc.Worker, error) {
	if !c.places.mayAsk() {
		return nil, errSilent
	}
	ask, cancel := context.WithTimeout(ctx, placePatience)
	defer cancel()
	info, err := c.cluster.Block(ask, id)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !noSuchBlock(err) {
		if ctx.Err() == nil {
			c.places.told(err)
		}
		return nil, err
	}
	workers := c.workersAt(info.GetLocations())
	c.places.put(id, place{workers: workers, at: time.Now()})
	return workers, nil
}
