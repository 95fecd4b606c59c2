package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// The ports that servers get lie below those that the kernel gives to those that ask for any, so that no process is
// given one of them by chance between our reservation and the server's start.
const (
	lowestPort  = 20000
	highestPort = 32000
)

// makeServers gives every server its address, its ports and its directories.
func (c *Cluster) makeServers(ctx context.Context) error {
	for n := range c.cfg.Masters {
		s, err := c.makeServer(ctx, Master, n+1, 3)
		if err != nil {
			return err
		}
		// Alluxio takes a journal directory that is there for one that was formatted.
		if err := os.MkdirAll(s.journalDir(), 0o700); err != nil {
			return err
		}
		s.raft = s.reserved.ports[2]
		c.masters = append(c.masters, s)
	}
	for n := range c.cfg.Workers {
		s, err := c.makeServer(ctx, Worker, n+1, 2)
		if err != nil {
			return err
		}
		s.TierDir = filepath.Join(c.tier, s.Name)
		if err := os.MkdirAll(s.TierDir, 0o755); err != nil {
			return err
		}
		c.workers = append(c.workers, s)
	}
	return nil
}

// makeServer makes one with so many ports, of which the first two are for gRPC and for its pages.
func (c *Cluster) makeServer(ctx context.Context, role Role, n, ports int) (*Server, error) {
	host := "127.0.0.1"
	if !c.cfg.SameHost {
		host = loopback()
	}
	bind := host
	if c.cfg.Proxies {
		bind = loopback()
	}
	r, err := reserve(ctx, bind, host, ports)
	if err != nil {
		return nil, err
	}
	name := string(role) + "-" + strconv.Itoa(n)
	return &Server{
		Name: name, Role: role, Host: host, Log: filepath.Join(c.dir, name+".log"),
		cluster: c, dir: filepath.Join(c.dir, name), reserved: r,
		bind: bind, rpc: r.ports[0], web: r.ports[1],
	}, nil
}

// reservation holds ports until a server is about to take them.
type reservation struct {
	ports     []int
	listeners []net.Listener
}

// reserve finds n ports that are free on the address bind; the first one, where a proxy may stand before the server, is
// free on the other address too.
func reserve(ctx context.Context, bind, front string, n int) (*reservation, error) {
	r := &reservation{}
	var listen net.ListenConfig
	var last error
	for range 200 {
		if len(r.ports) == n {
			return r, nil
		}
		hosts := []string{bind}
		if len(r.ports) == 0 && front != bind {
			hosts = append(hosts, front)
		}
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		var listeners []net.Listener
		for _, host := range hosts {
			l, err := listen.Listen(ctx, "tcp4", net.JoinHostPort(host, strconv.Itoa(port)))
			if err != nil {
				last = err
				break
			}
			listeners = append(listeners, l)
		}
		r.listeners = append(r.listeners, listeners...)
		if len(listeners) == len(hosts) {
			r.ports = append(r.ports, port)
		}
	}
	r.release()
	return nil, fmt.Errorf("no free ports on %s: %w", bind, last)
}

// release lets the ports go. It may be called twice.
func (r *reservation) release() {
	for _, l := range r.listeners {
		_ = l.Close()
	}
	r.listeners = nil
}

// loopback is a random address of 127.0.0.0/8 that is not 127.0.x.x, which others use.
func loopback() string {
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}
