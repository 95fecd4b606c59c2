package cluster

import (
	"context"
	"encoding/json"
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
	leader, _, err := c.leads(ctx)
	return leader, err
}

// leads finds the leader and the live workers that it knows, as host:port with the port of their pages.
func (c *Cluster) leads(ctx context.Context) (*Server, map[string]bool, error) {
	for {
		if leader, workers := c.askMasters(ctx); leader != nil {
			return leader, workers, nil
		}
		if err := c.crashed(); err != nil {
			return nil, nil, err
		}
		if err := pause(ctx); err != nil {
			return nil, nil, fmt.Errorf("no master leads: %w", err)
		}
	}
}

// WaitReady waits until a master leads, every worker that runs is registered with it, and every master that runs
// accepts connections. Servers that were killed or paused are not waited for, nor is it waited until the leader misses
// them; one that ended by itself is an error.
func (c *Cluster) WaitReady(ctx context.Context) error {
	for {
		_, known, err := c.leads(ctx)
		if err != nil {
			return err
		}
		missing := c.missing(ctx, known)
		if missing == nil {
			return nil
		}
		if err := c.crashed(); err != nil {
			return err
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%s is not ready: %w", missing.Name, err)
		}
	}
}

// missing is a server that runs and is not ready, nil when all are. A worker that was started again may be known to the
// leader from before; it listens for its web pages only after it has registered.
func (c *Cluster) missing(ctx context.Context, known map[string]bool) *Server {
	for _, s := range c.Servers() {
		if !s.awake() {
			continue
		}
		if s.Role == Worker && (!known[net.JoinHostPort(s.Host, strconv.Itoa(s.web))] || !listens(ctx, s.at(s.web))) {
			return s
		}
		if !listens(ctx, s.at(s.rpc)) {
			return s
		}
	}
	return nil
}

// askMasters asks all masters at once, and is nil unless exactly one takes itself for the leader: one that was paused
// does so for a moment when it goes on.
func (c *Cluster) askMasters(ctx context.Context) (*Server, map[string]bool) {
	type answer struct {
		master  *Server
		workers map[string]bool
	}
	answers := make(chan answer, len(c.masters))
	for _, m := range c.masters {
		go func() {
			if m.awake() {
				if workers, err := liveWorkers(ctx, m); err == nil {
					answers <- answer{m, workers}
					return
				}
			}
			answers <- answer{}
		}()
	}
	var leaders []answer
	for range c.masters {
		if a := <-answers; a.master != nil {
			leaders = append(leaders, a)
		}
	}
	if len(leaders) != 1 {
		return nil, nil
	}
	return leaders[0].master, leaders[0].workers
}

// liveWorkers asks a master for the workers it counts as alive. Only a leader answers.
func liveWorkers(ctx context.Context, m *Server) (map[string]bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.Web()+"/api/v1/master/webui_workers", nil)
	if err != nil {
		return nil, err
	}
	resp, err := pages.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", req.URL, resp.Status)
	}
	var page struct {
		Nodes []struct {
			Host    string `json:"host"`
			WebPort int    `json:"webPort"`
		} `json:"normalNodeInfos"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		return nil, fmt.Errorf("%s: %w", req.URL, err)
	}
	workers := map[string]bool{}
	for _, n := range page.Nodes {
		workers[net.JoinHostPort(n.Host, strconv.Itoa(n.WebPort))] = true
	}
	return workers, nil
}

// listens reports whether a server accepts connections at the address.
func listens(ctx context.Context, address string) bool {
	dialer := net.Dialer{Timeout: answerLimit}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// crashed is an error when a server ended that was not killed, with what its log has as the cause.
func (c *Cluster) crashed() error {
	for _, s := range c.Servers() {
		if s.crashed() {
			return fmt.Errorf("%s ended by itself: %s", s.Name, cause(s.Log))
		}
	}
	return nil
}

// addressInUse reports whether a server ended because another process had its port.
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
