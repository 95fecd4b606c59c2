// Package driver is the CSI driver: the process that mounts, and keeps what it mounted alive. It serves no file
// system. The agent, another process, does; this one opens /dev/fuse, calls mount(2), and hands the device over.
//
// The life of a volume on a node:
//
//  1. NodeStageVolume: the volume's lock is taken (locks.go), its attributes and mount options are read into a
//     handover.Volume (volume.go, mountoptions.go) and held against what the operator allows.
//  2. A record goes to disk with the phase "partial" (state.go). A process that finds one after a crash undoes it.
//  3. mount(2) on the staging path; the agent gets the device and the description, answers INIT, and gives back
//     the state that a successor of it needs; the mount is asked for its root; the record becomes "staged" (stage.go).
//  4. Custody keeps copies of the device and the state (custody.go), and has the keeper keep others (thirdhand.go).
//     When the agent dies, its successor gets everything again, and readers see a pause.
//  5. NodePublishVolume notes the target in the record and binds the mount to it (publish.go). A pod that is to be
//     shown something else than was staged, such as files of another group, gets another mount (view.go).
//  6. NodeGetVolumeStats and NodeGetVolumeHealth ask the agent, never the mount (health.go).
//  7. NodeUnpublishVolume takes our mounts off the target and removes it. NodeUnstageVolume marks the record
//     "partial", unmounts, ends the session, closes the descriptors, and drops the record. Neither waits longer
//     than five seconds: plainly, then lazily or by force, then by an abort of the connection (unmount.go).
//
// When this process starts it reads the records and, as soon as an agent is there, goes through them (recover.go):
// what the keeper or the agent has is taken back from it; what no process has is mounted anew and bound to every
// target that is still there; what was interrupted is undone; sessions that no record knows are ended. The same
// round runs whenever an agent appears, and every few seconds. Calls do not wait for it: each brings its own
// volume in order first.
//
// Stopping leaves every mount in place.
//
// What guards what: locks.go lets one operation work on a volume, and the holder of a volume's lock may write its
// record and change its mounts. custody.mu guards what is held, held.mu the files of one volume. Nothing asks a
// mount for anything without a deadline and a goroutine of its own, because a mount answers when its server does.
package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/socket"
)

// Name is the driver's name, which PersistentVolumes and StorageClasses refer to.
const Name = "csi.millrace.io"

// TopologyKey is the label of a node that names it.
const TopologyKey = "millrace.io/node"

// Config says what the driver serves, where, and what volumes may name.
type Config struct {
	// Endpoint is the path of the CSI socket.
	Endpoint string
	// NodeID names this node, as the orchestrator does; at most 192 bytes.
	NodeID string
	// Version is what GetPluginInfo answers; never empty.
	Version string
	// AgentSocket is the path of the socket on which the agent takes connections over.
	AgentSocket string
	// KeeperSocket is the path of the socket on which the keeper takes copies of connections, "" where there is none.
	KeeperSocket string
	// StateDir is the directory of the records, which are all that a restart knows. The mounts of ephemeral
	// volumes are below it, so mounts made there must propagate to the host like those of kubelet's directory.
	StateDir string
	// RegistrationDir is where kubelet looks for drivers, "" for no registration.
	RegistrationDir string
	// KubeletEndpoint is the CSI socket's path as kubelet sees it, Endpoint if "".
	KubeletEndpoint string
	// Health is where /healthz and /readyz answer: unix:///path, or an address of the loopback interface such as
	// 127.0.0.1:9808; "" for nowhere.
	Health string
	// MaxVolumes is how many volumes the orchestrator may bring to this node, 0 for no limit.
	MaxVolumes int64
	// Policy is what volumes may name of this node.
	Policy handover.Policy
	// Log takes what the driver has to say; nothing is logged where it is nil.
	Log *slog.Logger
}

// maxNodeID is the longest node id in bytes that fits a label of the topology and kubelet's annotation.
const maxNodeID = 192

// check tells what is wrong with the configuration.
func (c *Config) check() error {
	switch {
	case c.NodeID == "" || len(c.NodeID) > maxNodeID:
		return fmt.Errorf("the node id %q has %d bytes, not 1 to %d", c.NodeID, len(c.NodeID), maxNodeID)
	case c.Version == "":
		return errors.New("the driver's version is empty")
	}
	paths := []struct{ name, path string }{
		{"the CSI socket", c.Endpoint},
		{"the agent's socket", c.AgentSocket},
		{"the state directory", c.StateDir},
	}
	if c.RegistrationDir != "" {
		paths = append(paths, struct{ name, path string }{"the registration directory", c.RegistrationDir})
	}
	if c.KeeperSocket != "" {
		paths = append(paths, struct{ name, path string }{"the keeper's socket", c.KeeperSocket})
	}
	for _, dir := range c.Policy.TierDirs {
		paths = append(paths, struct{ name, path string }{"the tier directory", dir})
	}
	for _, dir := range c.Policy.LocalSources {
		paths = append(paths, struct{ name, path string }{"the local source", dir})
	}
	for _, p := range paths {
		if !filepath.IsAbs(p.path) {
			return fmt.Errorf("%s %q is not an absolute path", p.name, p.path)
		}
	}
	if err := CheckHealth(c.Health); err != nil {
		return fmt.Errorf("%q is %w", c.Health, err)
	}
	return nil
}

// Driver is the CSI driver of one node. Its methods that are RPCs may be called from many goroutines.
type Driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
	csi.UnimplementedControllerServer

	cfg     Config
	log     *slog.Logger
	agent   *handover.Client
	custody *custody
	third   *thirdHand
	locks   *locks

	// records are the volumes of this node, created those that CreateVolume made.
	records *shelf[record]
	created *shelf[created]
	// usage is what the agent said last of each volume.
	usage *usage
	// told is what the agent was told last of the pods whose mounts are lost; the goroutine of keep alone uses it.
	told told

	// serving says that the CSI socket answers, adopted that all volumes were brought in order once.
	serving, adopted atomic.Bool
	// noControl has said that connections cannot be aborted.
	noControl sync.Once
}

// New makes a driver. It touches nothing before Run.
func New(cfg Config) (*Driver, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.KubeletEndpoint == "" {
		cfg.KubeletEndpoint = cfg.Endpoint
	}
	agent := handover.Dial(cfg.AgentSocket)
	custody := newCustody(agent, cfg.Log)
	return &Driver{
		cfg: cfg, log: cfg.Log, agent: agent, custody: custody, third: newThirdHand(cfg.KeeperSocket, custody, cfg.Log),
		locks: newLocks(), usage: newUsage(),
	}, nil
}

// stopTime bounds what calls that are under way get to end when the driver stops.
const stopTime = 5 * time.Second

// Run serves until the context ends, and leaves every mount in place. It may be called once.
func (d *Driver) Run(ctx context.Context) error {
	lock, err := d.openState()
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	defer d.custody.closeAll()

	group, ctx := errgroup.WithContext(ctx)
	if err := d.listen(ctx, group); err != nil {
		return err
	}
	// Custody outlives the calls, which work on what it holds.
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	var watched sync.WaitGroup
	watched.Go(func() { d.custody.watch(watching, d.keep) })
	watched.Go(func() { d.third.watch(watching, d.adoptKept) })
	for _, path := range d.records.damaged {
		d.log.Error("a record of a volume cannot be read; sessions without a record are left alone until the file is "+
			"removed", "file", path)
	}
	d.log.Info("serving", "endpoint", d.cfg.Endpoint, "node", d.cfg.NodeID, "volumes", len(d.records.ids()))
	err = group.Wait()
	d.third.leave(watching)
	stop()
	watched.Wait()
	d.log.Info("stopped; the mounts stay")
	return err
}

// The directories in the state directory.
const (
	recordsDir   = "volumes"
	createdDir   = "created"
	ephemeralDir = "ephemeral"
)

// openState makes the state directory this process's alone and reads it.
func (d *Driver) openState() (*os.File, error) {
	dir := d.cfg.StateDir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	resolved, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	d.cfg.StateDir = resolved
	// The directory itself is locked while a socket in it is made, and that of the driver may be there.
	records := filepath.Join(resolved, recordsDir)
	if err := os.MkdirAll(records, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	lock, err := os.Open(records)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("state directory %s is in use by another process", dir)
	}
	if err = os.Chmod(resolved, 0o700); err == nil {
		d.records, err = openShelf[record](records)
	}
	if err == nil {
		d.created, err = openShelf[created](filepath.Join(resolved, createdDir))
	}
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return lock, nil
}

// listen makes the sockets, all or none, and starts to serve on them.
func (d *Driver) listen(ctx context.Context, group *errgroup.Group) (err error) {
	var listeners []net.Listener
	defer func() {
		if err != nil {
			for _, l := range listeners {
				_ = l.Close()
			}
		}
	}()
	endpoint, err := socket.Listen(d.cfg.Endpoint)
	if err != nil {
		return fmt.Errorf("the CSI socket: %w", err)
	}
	listeners = append(listeners, endpoint)
	health, err := listenHealth(ctx, d.cfg.Health)
	if err != nil {
		return fmt.Errorf("the health address: %w", err)
	}
	if health != nil {
		listeners = append(listeners, health)
	}
	var registration net.Listener
	if d.cfg.RegistrationDir != "" {
		if registration, err = socket.Listen(RegistrationSocket(d.cfg.RegistrationDir)); err != nil {
			return fmt.Errorf("the registration socket: %w", err)
		}
		listeners = append(listeners, registration)
	}

	server := grpc.NewServer(grpc.ChainUnaryInterceptor(d.intercept))
	csi.RegisterIdentityServer(server, d)
	csi.RegisterNodeServer(server, d)
	csi.RegisterControllerServer(server, d)
	serveGRPC(ctx, group, server, endpoint)
	d.serving.Store(true)
	context.AfterFunc(ctx, func() { d.serving.Store(false) })
	if health != nil {
		d.serveHealth(ctx, group, health)
	}
	if registration != nil {
		serveGRPC(ctx, group, d.registrationServer(), registration)
	}
	return nil
}

// serveGRPC serves until the context ends, and then lets calls that are under way end, in bounded time.
func serveGRPC(ctx context.Context, group *errgroup.Group, server *grpc.Server, l net.Listener) {
	group.Go(func() error { return server.Serve(l) })
	group.Go(func() error {
		<-ctx.Done()
		hard := time.AfterFunc(stopTime, server.Stop)
		defer hard.Stop()
		server.GracefulStop()
		return nil
	})
}

// EndpointPath is the path of a unix socket that is given as unix:///path, unix:/path or /path.
func EndpointPath(endpoint string) (string, error) {
	path := strings.TrimPrefix(strings.TrimPrefix(endpoint, "unix:"), "//")
	if !filepath.IsAbs(path) {
		return "", errors.New("not a unix socket: accepted are unix:///path and /path")
	}
	return path, nil
}
