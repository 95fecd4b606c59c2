package alluxio

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

// localWorkers are the workers of this machine.
type localWorkers struct {
	hosts   map[string]bool
	enabled bool

	// mu guards the rest.
	mu sync.Mutex
	// workers are those whose files can be opened here, as far as is known.
	workers []*rpc.Worker
	// unseen are workers of this machine whose files are not to be seen here, and when to look again.
	unseen map[*rpc.Worker]time.Time
	// dirs are where their blocks are.
	dirs map[*rpc.Worker]string
}

// lookAgain is how long a worker whose files cannot be opened is read by gRPC.
const lookAgain = time.Minute

func newLocalWorkers(hosts []string, enabled bool) *localWorkers {
	l := &localWorkers{
		hosts: make(map[string]bool), enabled: enabled, unseen: make(map[*rpc.Worker]time.Time),
		dirs: make(map[*rpc.Worker]string),
	}
	if len(hosts) == 0 {
		hosts = ownNames()
	}
	for _, h := range hosts {
		l.hosts[h] = true
	}
	return l
}

// ownNames are the names and addresses of this machine.
func ownNames() []string {
	names := []string{"localhost"}
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return names
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			names = append(names, n.IP.String())
		}
	}
	return names
}

// isHere reports whether the worker is on this machine.
func (l *localWorkers) isHere(w *rpc.Worker) bool {
	ip := net.ParseIP(w.Host())
	return l.hosts[w.Host()] || ip != nil && ip.IsLoopback() && l.hosts["127.0.0.1"]
}

// is reports whether the worker is on this machine, and its files may be opened.
func (l *localWorkers) is(w *rpc.Worker) bool {
	if !l.enabled || !l.isHere(w) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().After(l.unseen[w])
}

// follow takes note of the live workers, and returns those of this machine that are new.
func (l *localWorkers) follow(live []*rpc.Worker) (fresh []*rpc.Worker) {
	var here []*rpc.Worker
	for _, w := range live {
		if l.is(w) {
			here = append(here, w)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range here {
		if !slices.Contains(l.workers, w) {
			fresh = append(fresh, w)
		}
	}
	l.workers = here
	// What is known of those that are gone would be kept for as long as this process lives.
	maps.DeleteFunc(l.dirs, func(w *rpc.Worker, _ string) bool { return !slices.Contains(here, w) })
	maps.DeleteFunc(l.unseen, func(w *rpc.Worker, until time.Time) bool {
		return time.Now().After(until) ||
			!slices.Contains(live, w)
	})
	return fresh
}

// all are the workers of this machine.
func (l *localWorkers) all() []*rpc.Worker {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.workers
}

// hide has a worker be read by gRPC, because its files are not to be seen here.
func (l *localWorkers) hide(w *rpc.Worker) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unseen[w] = time.Now().Add(lookAgain)
	l.workers = slices.DeleteFunc(slices.Clone(l.workers), func(o *rpc.Worker) bool { return o == w })
}

// seen notes the directory in which a worker's block was, and dir tells it, "" where none is known.
func (l *localWorkers) seen(w *rpc.Worker, dir string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirs[w] = dir
}

// inTier reports whether a file of this name is where a worker of this machine has its blocks, as far as that is known.
func (l *localWorkers) inTier(id int64) bool {
	for _, w := range l.all() {
		if dir := l.dir(w); dir != "" {
			if _, err := os.Lstat(filepath.Join(dir, strconv.FormatInt(id, 10))); err == nil {
				return true
			}
		}
	}
	return false
}

func (l *localWorkers) dir(w *rpc.Worker) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dirs[w]
}
