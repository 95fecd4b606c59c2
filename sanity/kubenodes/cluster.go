package kubenodes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace.io/millrace/sanity/janitor"
	"millrace.io/millrace/sanity/kube"
	"millrace.io/millrace/sanity/machines"
	"millrace.io/millrace/sanity/pki"
)

// Options say what a cluster is like.
type Options struct {
	// Nodes is how many there are, named node1 and so on.
	Nodes int
	// Images writes docker-archives into a directory, which every node imports when it is first started; that of
	// PauseImage is among them.
	Images func(ctx context.Context, dir string) ([]string, error)
	// Shm is the size of each node's /dev/shm in bytes.
	Shm int64
	// Names are more names that pods know, with their addresses.
	Names map[string]string
	// Admission are the API server's admission plugins beside those that each cluster has.
	Admission []string
	// Log is told what happens.
	Log func(format string, args ...any)
}

// Cluster is a running one.
type Cluster struct {
	options Options
	bin     string
	dir     string
	pki     *pki.Authority
	janitor *janitor.Janitor
	images  []string
	control *machines.Machine
	nodes   []*machines.Machine
	others  []*machines.Machine
}

// startPatience bounds how long each step of a start may take; a machine that builds beside it is slow.
const startPatience = 2 * time.Minute

// needed are the distribution's programs without which there is no cluster.
var needed = []string{"containerd", "ctr", "runc", "nft", "nsenter", "busybox", "pgrep"}

// Check says what this machine lacks for a cluster.
func Check() error {
	if os.Getuid() != 0 {
		return errors.New("a cluster of nodes needs root")
	}
	for _, program := range needed {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("a cluster of nodes needs %s, which is not here: sanity/setup.sh e2e installs it",
				program)
		}
	}
	if _, err := os.Stat("/usr/lib/cni/ptp"); err != nil {
		return errors.New("a cluster of nodes needs the package containernetworking-plugins, which is not here: " +
			"sanity/setup.sh e2e installs it")
	}
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		return errors.New("a cluster of nodes needs cgroups of version 1, which are not here")
	}
	return nil
}

// Start starts a cluster, and returns when all its nodes are ready.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	if err := Check(); err != nil {
		return nil, err
	}
	bin, err := kube.NodeBinaries(ctx)
	if err != nil {
		return nil, err
	}
	// Not on a tmpfs: it holds the nodes' disks.
	dir, err := os.MkdirTemp("", "millrace-nodes-*")
	if err != nil {
		return nil, err
	}
	j, err := janitor.Start(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	c := &Cluster{options: options, bin: bin, dir: dir, janitor: j}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	if err := os.Mkdir(c.file("images"), 0o700); err != nil {
		return err
	}
	var err error
	if c.images, err = c.options.Images(ctx, c.file("images")); err != nil {
		return err
	}
	begin := time.Now()
	if err := os.Mkdir(c.file("pki"), 0o700); err != nil {
		return err
	}
	if c.pki, err = pki.New(c.file("pki")); err != nil {
		return err
	}
	if err := errors.Join(c.makeKeys(), c.writeConfigs()); err != nil {
		return err
	}
	if c.control, err = machines.Start(ctx, c.machine(ctl), c.environment()); err != nil {
		return err
	}
	for _, s := range []string{Etcd, APIServer} {
		if err := c.StartService(ctx, c.control, s); err != nil {
			return err
		}
	}
	var nodes errgroup.Group
	c.nodes = make([]*machines.Machine, c.options.Nodes)
	for i := range c.nodes {
		nodes.Go(func() (err error) {
			if c.nodes[i], err = machines.Start(ctx, c.machine(nodeName(i)), c.environment()); err != nil {
				return err
			}
			return c.startNode(ctx, c.nodes[i], true)
		})
	}
	if err := errors.Join(c.startControl(ctx), nodes.Wait()); err != nil {
		return err
	}
	if err := c.AwaitNodes(ctx); err != nil {
		return err
	}
	if err := c.StartService(ctx, c.control, Proxy); err != nil {
		return err
	}
	if err := c.await(ctx, "the default service account", func(ctx context.Context) error {
		_, err := c.Kubectl(ctx, "get", "serviceaccount", "default")
		return err
	}); err != nil {
		return err
	}
	c.options.Log("cluster: %d nodes ready after %v", len(c.nodes), time.Since(begin).Round(100*time.Millisecond))
	return nil
}

// machine is what one is like.
func (c *Cluster) machine(name string) machines.Config {
	n := c.options.Nodes
	m := machines.Config{
		Name: name, Disk: c.file(name + "/disk"), Work: c.dir, Cgroup: filepath.Base(c.dir), Shm: c.options.Shm,
		Hosts: c.hosts(),
	}
	if name == ctl {
		m.Address, m.Routes = prefix(ControlPlane), controlRoutes(n)
		return m
	}
	m.Switch = c.control.PID()
	for i := range n {
		if nodeName(i) == name {
			m.Address, m.Routes = prefix(nodeAddress(i).String()), nodeRoutes(i, n)
		}
	}
	return m
}

// AddMachine starts a machine beside the cluster, at an address from 10.200.0.2 to 10: a server that pods reach, with
// its own power and its own network card.
func (c *Cluster) AddMachine(ctx context.Context, name, address string) (*machines.Machine, error) {
	config := c.machine(name)
	config.Address, config.Routes = prefix(address), nodeRoutes(-1, c.options.Nodes)
	m, err := machines.Start(ctx, config, c.environment())
	c.others = append(c.others, m)
	return m, err
}

// startControl starts the rest of the control plane once the API answers.
func (c *Cluster) startControl(ctx context.Context) error {
	if err := c.AwaitAPI(ctx); err != nil {
		return err
	}
	for _, s := range []string{ControllerManager, Scheduler, DNS} {
		if err := c.StartService(ctx, c.control, s); err != nil {
			return err
		}
	}
	return c.await(ctx, "the DNS Service", func(ctx context.Context) error {
		_, err := c.Kubectl(ctx, "apply", "-f", c.file("dns.yaml"))
		return err
	})
}

// startNode starts a node's services. One that is new imports the images first.
func (c *Cluster) startNode(ctx context.Context, m *machines.Machine, fresh bool) error {
	if err := c.StartService(ctx, m, Containerd); err != nil {
		return err
	}
	if err := c.await(ctx, "containerd of "+m.Name(), func(ctx context.Context) error {
		return m.Command(ctx, "ctr", "version").Run()
	}); err != nil {
		return err
	}
	if fresh {
		for _, archive := range c.images {
			if err := load(ctx, m, archive); err != nil {
				return err
			}
		}
	}
	if err := c.StartService(ctx, m, Kubelet); err != nil {
		return err
	}
	return c.StartService(ctx, m, Proxy)
}

// load imports a docker-archive on a node.
func load(ctx context.Context, m *machines.Machine, archive string) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	if out, err := m.Command(ctx, "ctr", "-n", "k8s.io", "images", "import", archive).CombinedOutput(); err != nil {
		return fmt.Errorf("%s on %s: %w: %s", archive, m.Name(), err, out)
	}
	return nil
}

// Control is the control plane's machine.
func (c *Cluster) Control() *machines.Machine { return c.control }

// Node is a node by its name.
func (c *Cluster) Node(name string) *machines.Machine {
	for _, m := range c.nodes {
		if m.Name() == name {
			return m
		}
	}
	return nil
}

// Nodes are all nodes.
func (c *Cluster) Nodes() []*machines.Machine { return c.nodes }

// PowerCut ends a node as the loss of its power does.
func (c *Cluster) PowerCut(node string) error { return c.Node(node).PowerCut() }

// Boot starts a node that lost its power; it has its disk.
func (c *Cluster) Boot(ctx context.Context, node string) error {
	m := c.Node(node)
	if err := m.Boot(ctx); err != nil {
		return err
	}
	return c.startNode(ctx, m, false)
}

// AwaitAPI returns when the API answers.
func (c *Cluster) AwaitAPI(ctx context.Context) error {
	return c.await(ctx, "the API server", func(ctx context.Context) error {
		_, err := c.Kubectl(ctx, "get", "--raw", "/readyz")
		return err
	})
}

// AwaitNodes returns when all nodes are ready.
func (c *Cluster) AwaitNodes(ctx context.Context) error {
	return c.await(ctx, "the nodes", func(ctx context.Context) error {
		out, err := c.Kubectl(ctx, "get", "nodes", "-o",
			`jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status} {end}`)
		if err == nil && strings.Count(out, "True") != len(c.nodes) {
			return fmt.Errorf("ready: %s", out)
		}
		return err
	})
}

// await repeats until there is no error.
func (c *Cluster) await(ctx context.Context, what string, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		err := do(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", what, context.Cause(ctx), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Stop ends everything and removes what was written.
func (c *Cluster) Stop() error {
	var all errgroup.Group
	for _, m := range slices.Concat(c.nodes, c.others, []*machines.Machine{c.control}) {
		if m != nil {
			all.Go(m.Remove)
		}
	}
	return errors.Join(all.Wait(), c.janitor.Clean())
}
