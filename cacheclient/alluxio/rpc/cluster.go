package rpc

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// Config says which cluster, and as whom.
type Config struct {
	// Masters are host:port of every master.
	Masters  []string
	Security Security
	// Log receives what an operator should know; nothing by default.
	Log *slog.Logger
}

// Cluster is the masters and workers that one process speaks to. All sessions of the process that
// name the same masters as the same user share it.
type Cluster struct {
	*Masters
	*Workers

	key string
	// users is guarded by clusters.mu.
	users int
}

// clusters are those in use.
var clusters = struct {
	// mu guards the rest.
	mu    sync.Mutex
	byKey map[string]*Cluster
}{byKey: make(map[string]*Cluster)}

// Connect returns the cluster, which the caller gives back with Release. It asks nothing of a server: whether one
// answers turns out with the first call.
func Connect(cfg Config) (*Cluster, error) {
	security, err := cfg.Security.complete()
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	masters := slices.Compact(slices.Sorted(slices.Values(cfg.Masters)))
	key := strings.Join(masters, ",") + " " + security.key()
	clusters.mu.Lock()
	defer clusters.mu.Unlock()
	if c := clusters.byKey[key]; c != nil {
		c.users++
		return c, nil
	}
	who, err := security.identity()
	if err != nil {
		return nil, err
	}
	m, err := newMasters(masters, who, cfg.Log)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Masters: m, Workers: newWorkers(m, who), key: key, users: 1}
	clusters.byKey[key] = c
	return c, nil
}

// Release ends the connections, and all calls, when the last user has released the cluster. Nothing of them runs
// any more when it returns.
func (c *Cluster) Release() {
	if c.left() {
		c.Masters.close()
		c.Workers.close()
	}
}

// left counts one user less, and reports whether that was the last.
func (c *Cluster) left() bool {
	clusters.mu.Lock()
	defer clusters.mu.Unlock()
	c.users--
	if c.users == 0 {
		delete(clusters.byKey, c.key)
	}
	return c.users == 0
}

// Check asks the leader which version it runs, and refuses one whose protocol is another. It is for the start of a
// session; a cluster that does not answer is cacheclient.ErrUnavailable.
func (c *Cluster) Check(ctx context.Context) error {
	info, err := c.MasterInfo(ctx)
	if err != nil {
		return err
	}
	return supported(strings.Join(c.addrs, ","), info.Version)
}
