package rpc

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

const (
	// listAge is how long the list of workers is believed while all goes well, and listAgain after how long it is asked
	// for anew when it could not be had, or has become shorter: a new leader learns of its workers one by one.
	listAge   = 10 * time.Second
	listAgain = time.Second
	// listPatience bounds the question for it.
	listPatience = 3 * time.Second
	// forgetAfter is how long a worker is known that masters neither list nor name, while they list any: pods have
	// another address with each restart.
	forgetAfter = 5 * time.Minute
)

// Workers are the workers of a cluster, as the masters list them and as locations of blocks name them.
type Workers struct {
	masters *Masters
	who     identity
	// work counts the goroutines that ask for the list and that close connections.
	work sync.WaitGroup
	// unusable are the errors of workers that were logged.
	unusable noted

	// mu guards the rest.
	mu sync.Mutex
	// byAddr are the workers that masters listed or named lately, first the one that they have not for longest.
	byAddr *simplelru.LRU[string, *Worker]
	// forgotten are those that byAddr has let go of and that are still to be closed.
	forgotten []*Endpoint
	// since is when the first of the lists came that followed each other without an outage, and last when the last did.
	since, last time.Time
	// live are those of the last list, sorted by address, stale is when to ask for another, and err why there was none.
	live  []*Worker
	stale time.Time
	err   error
	// listing is closed when the question under way is answered, nil when there is none.
	listing chan struct{}
	closed  bool
}

func newWorkers(m *Masters, who identity) *Workers {
	ws := &Workers{masters: m, who: who}
	// It fails for a size below 1 only.
	ws.byAddr, _ = simplelru.NewLRU(mostWorkers, func(_ string,
		w *Worker,
	) {
		ws.forgotten = append(ws.forgotten, w.endpoint)
	})
	return ws
}

// reachableHost is where to connect: in containers the host name that locality is told by may be none to connect to.
func reachableHost(a *wire.WorkerNetAddress) string {
	if c := a.GetContainerHost(); c != "" {
		return c
	}
	return a.GetHost()
}

// At returns the worker with this address.
func (ws *Workers) At(a *wire.WorkerNetAddress) (*Worker, error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.lookup(a)
}

// lookup is At with mu held.
func (ws *Workers) lookup(a *wire.WorkerNetAddress) (*Worker, error) {
	if len(a.GetHost()) > mostHostBytes || len(reachableHost(a)) > mostHostBytes {
		return nil, fmt.Errorf("the masters name a worker by more than %d bytes", mostHostBytes)
	}
	addr := net.JoinHostPort(reachableHost(a), strconv.Itoa(int(a.GetRpcPort())))
	if w, ok := ws.byAddr.Get(addr); ok {
		w.rename(a)
		return w, nil
	}
	if ws.closed {
		return nil, errReleased
	}
	if err := checkHostPort(addr); err != nil {
		return nil, fmt.Errorf("the masters name a worker %q that %w", addr, err)
	}
	w := newWorker(newEndpoint(addr, ws.who, largestOfWorker), a)
	ws.byAddr.Add(addr, w)
	ws.dismiss()
	return w, nil
}

// forgetOld lets go of the workers that no master has named for long; mu is held. While no master answers, none is
// named: after such an outage the time begins anew, as a new leader learns of its workers one by one.
// D-181 says why.
func (ws *Workers) forgetOld(now time.Time) {
	if now.Sub(ws.last) >= forgetAfter/2 {
		ws.since = now
	}
	ws.last = now
	if now.Sub(ws.since) < forgetAfter {
		return
	}
	for {
		_, w, ok := ws.byAddr.GetOldest()
		if !ok || now.Sub(w.lastNamed()) < forgetAfter {
			break
		}
		ws.byAddr.RemoveOldest()
	}
	ws.dismiss()
}

// dismiss closes the connections of the workers that were let go of, beside whatever its caller does; mu is held.
func (ws *Workers) dismiss() {
	if len(ws.forgotten) == 0 || ws.closed {
		return
	}
	gone := ws.forgotten
	ws.forgotten = nil
	ws.work.Go(func() {
		for _, e := range gone {
			e.leave(&Unreachable{Addr: e.addr, Why: "is no worker that the masters name any more"})
		}
	})
}

// Live are the workers that the masters listed last. A list that is old is asked for anew; while no master
// answers, the old one stands. Where there was never one, the error says why. The slice is to be read only.
func (ws *Workers) Live(ctx context.Context) ([]*Worker, error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if time.Now().Before(ws.stale) {
		return ws.live, ws.unlisted()
	}
	done := ws.refresh()
	if len(ws.live) > 0 {
		// Who reads goes on with the workers that were there a moment ago.
		return ws.live, nil
	}
	ws.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
	}
	ws.mu.Lock()
	if ctx.Err() != nil && len(ws.live) == 0 {
		return nil, fmt.Errorf("list the workers: %w", ctx.Err())
	}
	return ws.live, ws.unlisted()
}

// unlisted is why no workers are known; mu is held.
func (ws *Workers) unlisted() error {
	if len(ws.live) > 0 || ws.err == nil {
		return nil
	}
	return fmt.Errorf("list the workers: %w", ws.err)
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
	if ws.closed {
		close(done)
		return done
	}
	ws.listing = done
	ws.work.Go(func() { ws.list(done) })
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
	ws.listing, ws.err = nil, err
	before := len(ws.live)
	if len(infos) > 0 {
		ws.live = ws.listed(infos)
		ws.forgetOld(time.Now())
	}
	age := listAge
	if err != nil || len(infos) == 0 || len(ws.live) < before {
		age = listAgain
	}
	ws.stale = time.Now().Add(jitter(age))
}

// listed are the workers of a list, sorted by address; mu is held.
func (ws *Workers) listed(infos []*wire.WorkerInfo) []*Worker {
	live := make([]*Worker, 0, len(infos))
	seen := make(map[*Worker]bool, len(infos))
	for _, info := range infos {
		w, err := ws.lookup(info.GetAddress())
		if err != nil {
			if ws.unusable.first(err.Error()) {
				ws.masters.log.Warn("a worker cannot be used", "error", err)
			}
			continue
		}
		if seen[w] {
			// It is listed twice.
			continue
		}
		seen[w] = true
		w.setCapacity(info.GetCapacityBytes())
		live = append(live, w)
	}
	slices.SortFunc(live, func(a, b *Worker) int { return strings.Compare(a.Addr(), b.Addr()) })
	return live
}

// close ends the connections, and all calls. The masters are closed before.
func (ws *Workers) close() {
	closeAll(ws.shut())
	ws.work.Wait()
}

// shut has no worker be named any more, and returns the connections of all.
func (ws *Workers) shut() []*Endpoint {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.closed = true
	ws.byAddr.Purge()
	return ws.forgotten
}
