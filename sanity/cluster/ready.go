package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// pollPause is between two looks at the servers.
const pollPause = 50 * time.Millisecond

// answerLimit bounds one request to a server's pages: a paused one accepts and never answers.
const answerLimit = time.Second

// pages asks the servers without keeping connections, which a killed server would leave half-open.
var pages = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: answerLimit}

// Leader finds the master that leads, and waits for one until the context ends.
func (c *Cluster) Leader(ctx context.Context) (*Server, error) {
	leader, _, err := c.leader(ctx)
	return leader, err
}

// leader finds the leader and how many live workers it counts.
func (c *Cluster) leader(ctx context.Context) (*Server, int, error) {
	for {
		if leader, workers := c.askMasters(ctx); leader != nil {
			return leader, workers, nil
		}
		if err := c.crashed(); err != nil {
			return nil, 0, err
		}
		if err := pause(ctx); err != nil {
			return nil, 0, fmt.Errorf("no master leads: %w", err)
		}
	}
}

// WaitReady waits until a master leads, every worker that runs is registered with it, and every master that runs
// accepts connections. Servers that were killed or paused are not waited for; one that ended by itself is an error.
func (c *Cluster) WaitReady(ctx context.Context) error {
	for {
		_, workers, err := c.leader(ctx)
		if err != nil {
			return err
		}
		want := 0
		for _, w := range c.workers {
			if w.awake() {
				want++
			}
		}
		if workers == want && c.mastersListen(ctx) {
			return nil
		}
		if err := c.crashed(); err != nil {
			return err
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%d of %d workers are registered: %w", workers, want, err)
		}
	}
}

// askMasters asks all masters at once. Only a leader serves its metrics.
func (c *Cluster) askMasters(ctx context.Context) (*Server, int) {
	type answer struct {
		master  *Server
		workers int
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer, len(c.masters))
	for _, m := range c.masters {
		go func() {
			if !m.awake() {
				answers <- answer{}
				return
			}
			workers, err := liveWorkers(ctx, m)
			if err != nil {
				answers <- answer{}
				return
			}
			answers <- answer{m, workers}
		}()
	}
	for range c.masters {
		if a := <-answers; a.master != nil {
			return a.master, a.workers
		}
	}
	return nil, 0
}

// liveWorkers asks a leader how many workers it counts as alive.
func liveWorkers(ctx context.Context, m *Server) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.Web()+"/metrics/prometheus/", nil)
	if err != nil {
		return 0, err
	}
	resp, err := pages.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %s", req.URL, resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, mib)
	for lines.Scan() {
		if value, found := strings.CutPrefix(lines.Text(), "Cluster_Workers "); found {
			workers, err := strconv.ParseFloat(value, 64)
			return int(workers), err
		}
	}
	return 0, errors.Join(errors.New("no Cluster_Workers among the metrics"), lines.Err())
}

// mastersListen says whether all masters that run accept connections for their gRPC services.
func (c *Cluster) mastersListen(ctx context.Context) bool {
	dialer := net.Dialer{Timeout: answerLimit}
	for _, m := range c.masters {
		if !m.awake() {
			continue
		}
		conn, err := dialer.DialContext(ctx, "tcp", m.Address())
		if err != nil {
			return false
		}
		_ = conn.Close()
	}
	return true
}

// crashed is an error when a server ended that nobody killed, with what its log has as the cause.
func (c *Cluster) crashed() error {
	for _, s := range c.Servers() {
		if s.crashed() {
			return fmt.Errorf("%s ended by itself: %s", s.Name, cause(s.Log))
		}
	}
	return nil
}

// addressInUse says whether a server ended because another process had its port.
func (c *Cluster) addressInUse() bool {
	for _, s := range c.Servers() {
		if text, err := os.ReadFile(s.Log); err == nil && strings.Contains(string(text), "Address already in use") {
			return true
		}
	}
	return false
}

// pause waits a little, at most until the context ends.
func pause(ctx context.Context) error {
	select {
	case <-time.After(pollPause):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Restore starts the servers that do not run, lets paused ones go on, and waits until the cluster is ready.
func (c *Cluster) Restore(ctx context.Context) error {
	for _, s := range c.Servers() {
		var err error
		switch {
		case !s.Running():
			err = s.Start()
		case !s.awake():
			err = s.Resume()
		}
		if err != nil {
			return err
		}
	}
	return c.WaitReady(ctx)
}
