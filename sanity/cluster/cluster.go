package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"millrace.io/millrace/sanity/janitor"
)

// Cluster is a running Alluxio cluster.
type Cluster struct {
	cfg  Config
	java string   // the program
	jars string   // the directory
	more []string // further flags of every Java process
	dir  string   // all state but the tiers
	tier string   // the directory in /dev/shm
	ufs  string   // the root under store

	masters, workers []*Server
	janitor          *janitor.Janitor

	// mu guards ended and mounts. It is taken after a Server's.
	mu     sync.Mutex
	ended  bool
	mounts []*Fuse

	stop    sync.Once
	stopErr error // of stop
}

// startLimit bounds one attempt to start, where the caller's context does not.
const startLimit = 4 * time.Minute

// Start starts a cluster, and returns when a master leads and all workers are registered with it. The context bounds
// the start only. An error wraps ErrMissing where a program is not installed.
func Start(ctx context.Context, cfg Config) (*Cluster, error) { return startWith(ctx, cfg) }

// startWith is Start with further flags for every Java process.
func startWith(ctx context.Context, cfg Config, flags ...string) (*Cluster, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	java, err := Java()
	if err != nil {
		return nil, err
	}
	jars, err := Jars(ctx)
	if err != nil {
		return nil, err
	}
	if archive, err := archivePath(java, jars); err == nil && exists(archive) && len(flags) == 0 {
		flags = []string{"-XX:SharedArchiveFile=" + archive}
	}
	for try := 1; ; try++ {
		c := &Cluster{cfg: cfg, java: java, jars: jars, more: flags}
		err := c.attempt(ctx)
		if err == nil {
			return c, nil
		}
		// Another process took one of our ports in the moment between us and the server.
		again := try < 3 && (c.addressInUse() || errors.Is(err, syscall.EADDRINUSE))
		err = errors.Join(err, c.Stop())
		if !again {
			return nil, err
		}
	}
}

// attempt starts the servers; what it made is taken away by Stop.
func (c *Cluster) attempt(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := c.makeDirs(); err != nil {
		return err
	}
	if err := c.makeServers(ctx); err != nil {
		return err
	}
	if err := c.writeConfigurations(); err != nil {
		return err
	}
	for _, s := range c.Servers() {
		s.reserved.release()
		if err := s.startProxy(ctx); err != nil {
			return err
		}
		if err := s.Start(); err != nil {
			return err
		}
	}
	return c.WaitReady(ctx)
}

// makeDirs makes the cluster's directories, and has the janitor know of them.
func (c *Cluster) makeDirs() (err error) {
	if c.dir, err = os.MkdirTemp("", "millrace-alluxio-"); err != nil {
		return fmt.Errorf("a directory for the cluster: %w", err)
	}
	c.tier = filepath.Join("/dev/shm", filepath.Base(c.dir))
	if c.janitor, err = janitor.Start(c.dir, c.tier); err != nil {
		return errors.Join(err, os.RemoveAll(c.dir))
	}
	if err := os.Mkdir(c.tier, 0o755); err != nil {
		return fmt.Errorf("a directory for the workers' tiers: %w", err)
	}
	c.ufs = c.cfg.UFS
	if c.ufs == "" {
		c.ufs = filepath.Join(c.dir, "ufs")
		return os.Mkdir(c.ufs, 0o755)
	}
	return nil
}

// Address is the cluster's URL: alluxio://host:port,host:port,host:port/ with all masters.
func (c *Cluster) Address() string {
	addresses := make([]string, len(c.masters))
	for i, m := range c.masters {
		addresses[i] = m.Address()
	}
	return "alluxio://" + strings.Join(addresses, ",") + "/"
}

// Masters are the masters, dead ones too.
func (c *Cluster) Masters() []*Server { return c.masters }

// Workers are the workers, dead ones too.
func (c *Cluster) Workers() []*Server { return c.workers }

// Servers are the masters and then the workers.
func (c *Cluster) Servers() []*Server {
	return append(append([]*Server(nil), c.masters...), c.workers...)
}

// UFS is the root under store: a directory, unless Config.UFS was a URI.
func (c *Cluster) UFS() string { return c.ufs }

// Jars is the directory of the jars that the cluster runs.
func (c *Cluster) Jars() string { return c.jars }

// Dir is a directory that goes with the cluster.
func (c *Cluster) Dir() string { return c.dir }

// Stop kills all servers and Alluxio's FUSE clients, and removes what they wrote. It may be called twice.
func (c *Cluster) Stop() error {
	c.stop.Do(func() { c.stopErr = c.end() })
	return c.stopErr
}

func (c *Cluster) end() error {
	c.mu.Lock()
	c.ended = true
	mounts := c.mounts
	c.mu.Unlock()
	var errs []error
	for _, f := range mounts {
		errs = append(errs, f.Stop())
	}
	for _, s := range c.Servers() {
		errs = append(errs, s.Kill())
		s.reserved.release()
		if s.proxy != nil {
			s.proxy.Close()
		}
	}
	if c.janitor != nil {
		errs = append(errs, c.janitor.Clean())
	}
	return errors.Join(errs...)
}

func (c *Cluster) stopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}
