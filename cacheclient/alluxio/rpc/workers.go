package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

const (
	// listAge is how long the list of workers is believed while all goes well.
	listAge = 10 * time.Second
	// listPatience bounds the question for it.
	listPatience = 3 * time.Second
	// brokenAfter failures in a row leave a worker alone for breakFor.
	brokenAfter = 3
	breakFor    = time.Second
)

// Workers are the workers of a cluster, as the masters list them and as locations of blocks name them.
type Workers struct {
	masters  *Masters
	security Security

	// mu guards the rest.
	mu sync.Mutex
	// byAddr has every worker that was ever named.
	byAddr map[string]*Worker
	// live are those of the last list, sorted by address; listed says when that was.
	live   []*Worker
	listed time.Time
	// listing is closed when the question under way is answered, nil when there is none.
	listing chan struct{}
}

func newWorkers(m *Masters, s Security) *Workers {
	return &Workers{masters: m, security: s, byAddr: make(map[string]*Worker)}
}

// Worker is one worker.
type Worker struct {
	endpoint *Endpoint
	address  *wire.WorkerNetAddress

	// mu guards the rest.
	mu sync.Mutex
	// failures are those in a row, until is when a worker with too many is tried again.
	failures int
	until    time.Time
	capacity int64
}

// Addr is host:port.
func (w *Worker) Addr() string { return w.endpoint.addr }

// Host is the name that the worker goes by: locality is told by it.
func (w *Worker) Host() string { return w.address.GetHost() }

// Capacity is the size of its tiers in bytes, 0 where it is not known.
func (w *Worker) Capacity() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.capacity
}

// Broken tells whether the worker failed so often that it is left alone for a moment.
func (w *Worker) Broken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failures >= brokenAfter && time.Now().Before(w.until)
}

// Failed counts a failure that came after the start of a stream, Well ends the count.
func (w *Worker) Failed() { w.outcome(errFailed) }

var errFailed = &Unreachable{Addr: "worker", Why: "failed"}

// outcome counts failures in a row. What a worker says clearly is none.
func (w *Worker) outcome(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.failures = 0
	case unavailable(err), errors.Is(err, context.DeadlineExceeded):
		w.failures++
		w.until = time.Now().Add(breakFor)
	}
}

// do makes a call to the worker.
func (w *Worker) do(ctx context.Context, f func(context.Context, *grpc.ClientConn) error) error {
	err := explain(w.endpoint.addr, w.endpoint.Do(ctx, f))
	w.outcome(err)
	return err
}

// dialAddress is where to connect: in containers the host name that locality is told by may be none to connect to.
func dialAddress(a *wire.WorkerNetAddress) string {
	host := a.GetHost()
	if c := a.GetContainerHost(); c != "" {
		host = c
	}
	return net.JoinHostPort(host, strconv.Itoa(int(a.GetRpcPort())))
}

// At returns the worker with this address.
func (ws *Workers) At(a *wire.WorkerNetAddress) (*Worker, error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.at(a)
}

// at is At with mu held.
func (ws *Workers) at(a *wire.WorkerNetAddress) (*Worker, error) {
	addr := dialAddress(a)
	if w := ws.byAddr[addr]; w != nil {
		return w, nil
	}
	e, err := newEndpoint(addr, ws.security)
	if err != nil {
		return nil, err
	}
	w := &Worker{endpoint: e, address: a}
	ws.byAddr[addr] = w
	return w, nil
}

// Live are the workers that the masters listed last. A list that is old is asked for anew; while no master
// answers, the old one stands. With none at all, the error says why.
func (ws *Workers) Live(ctx context.Context) ([]*Worker, error) {
	ws.mu.Lock()
	live, fresh := ws.live, time.Since(ws.listed) < listAge
	if fresh {
		ws.mu.Unlock()
		return live, nil
	}
	done := ws.refresh()
	ws.mu.Unlock()
	if len(live) > 0 {
		// Who reads goes on with the workers that were there a moment ago.
		return live, nil
	}
	select {
	case <-done:
	case <-ctx.Done():
		return nil, fmt.Errorf("list the workers: %w", ctx.Err())
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.live, nil
}

// Known are the workers of the last list, without asking for one.
func (ws *Workers) Known() []*Worker {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.live
}

// refresh asks the masters for the list, once at a time; mu is held.
func (ws *Workers) refresh() <-chan struct{} {
	if ws.listing != nil {
		return ws.listing
	}
	done := make(chan struct{})
	ws.listing = done
	go ws.list(done)
	return done
}

// list asks for the workers once. It ends within listPatience, or with the cluster.
func (ws *Workers) list(done chan struct{}) {
	ctx, cancel := context.WithTimeout(ws.masters.life, listPatience)
	defer cancel()
	infos, err := ws.masters.WorkerInfos(ctx)
	ws.mu.Lock()
	defer ws.mu.Unlock()
	defer close(done)
	ws.listing = nil
	if err != nil || len(infos) == 0 {
		// A new leader has no workers until they register: those of the old one are tried a second later again.
		ws.listed = time.Now().Add(time.Second - listAge)
		return
	}
	ws.listed = time.Now()
	ws.live = nil
	for _, info := range infos {
		w, err := ws.at(info.GetAddress())
		if err != nil {
			continue
		}
		w.mu.Lock()
		w.capacity = info.GetCapacityBytes()
		w.mu.Unlock()
		ws.live = append(ws.live, w)
	}
	slices.SortFunc(ws.live, func(a, b *Worker) int { return cmpString(a.Addr(), b.Addr()) })
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Rank orders the workers by how much each is the one to hold a block: rendezvous hashing, which every agent does
// alike, so that a block that nobody has is read from the source once and not once for each node.
func Rank(workers []*Worker, block int64) []*Worker {
	type scored struct {
		w     *Worker
		score uint64
	}
	ranked := make([]scored, 0, len(workers))
	for _, w := range workers {
		ranked = append(ranked, scored{w, score(w.Addr(), block)})
	}
	slices.SortFunc(ranked, func(a, b scored) int {
		if a.score != b.score {
			if a.score > b.score {
				return -1
			}
			return 1
		}
		return cmpString(a.w.Addr(), b.w.Addr())
	})
	out := make([]*Worker, len(ranked))
	for i, r := range ranked {
		out[i] = r.w
	}
	return out
}

// score is how well a worker and a block fit.
func score(addr string, block int64) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(addr))
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, uint64(block)))
	// FNV alone leaves the order of similar inputs similar: one round of a finalizer mixes it.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// NotCached tells whether an error says that a worker does not have a block.
func NotCached(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// close ends the connections.
func (ws *Workers) close() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, w := range ws.byAddr {
		w.endpoint.Close()
	}
}
