package fakemaster

import (
	"context"
	"fmt"
	"net"
	"path"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// Master is a master.
type Master struct {
	wire.UnimplementedServiceVersionClientServiceServer
	wire.UnimplementedMetaMasterClientServiceServer
	wire.UnimplementedFileSystemMasterClientServiceServer
	wire.UnimplementedBlockMasterClientServiceServer
	wire.UnimplementedMetricsMasterClientServiceServer

	server  *grpc.Server
	served  chan struct{}
	address string

	// mu guards the rest.
	mu      sync.Mutex
	follows bool
	workers []*wire.WorkerInfo
	mounts  map[string]*wire.MountPointInfo
	// dirs are the directories of Alluxio's own root, files those of sources, pinned the paths that are.
	dirs, pinned map[string]bool
	files        map[string]*wire.FileInfo
	notes        map[string][]byte
	// refuses is the error of a call about a path, in place of an answer.
	refuses func(call, path string) error
	// did are the changes that were asked for.
	did []string
}

// Worker is what the master tells of a worker.
type Worker struct {
	// Host and Port are where it is.
	Host string
	Port int32
	// Capacity and Used are bytes.
	Capacity, Used int64
}

// Start serves on a port of the loopback, and leads.
func Start() (*Master, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &Master{
		server: grpc.NewServer(), served: make(chan struct{}), address: listener.Addr().String(),
		mounts: map[string]*wire.MountPointInfo{}, dirs: map[string]bool{}, pinned: map[string]bool{},
		files: map[string]*wire.FileInfo{}, notes: map[string][]byte{},
	}
	wire.RegisterServiceVersionClientServiceServer(m.server, m)
	wire.RegisterMetaMasterClientServiceServer(m.server, m)
	wire.RegisterFileSystemMasterClientServiceServer(m.server, m)
	wire.RegisterBlockMasterClientServiceServer(m.server, m)
	wire.RegisterMetricsMasterClientServiceServer(m.server, m)
	go func() {
		defer close(m.served)
		_ = m.server.Serve(listener)
	}()
	return m, nil
}

// Close ends it.
func (m *Master) Close() error {
	m.server.Stop()
	<-m.served
	return nil
}

// Address is host:port.
func (m *Master) Address() string { return m.address }

// Follow has it be a standby master, or lead.
func (m *Master) Follow(follows bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.follows = follows
}

// SetWorkers has it tell of these workers, and no others.
func (m *Master) SetWorkers(workers ...Worker) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.workers = nil
	for i, w := range workers {
		m.workers = append(m.workers, &wire.WorkerInfo{
			Id: proto.Int64(int64(i + 1)), State: proto.String("In Service"),
			Address:       &wire.WorkerNetAddress{Host: &w.Host, RpcPort: &w.Port, DataPort: &w.Port},
			CapacityBytes: &w.Capacity, UsedBytes: &w.Used,
		})
	}
}

// Mounted puts a mount into its table, as by hand.
func (m *Master) Mounted(path, source string, properties map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mounts[path] = &wire.MountPointInfo{UfsUri: &source, Properties: properties}
}

// Put has it know a file of a source.
func (m *Master) Put(at string, f *wire.FileInfo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f.Name, f.Path = proto.String(path.Base(at)), &at
	m.files[at] = f
}

// Refuse has calls about paths fail as the function says; nil answers all.
func (m *Master) Refuse(refuses func(call, path string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuses = refuses
}

// Did are the changes that were asked for since it was asked the last time, in their order.
func (m *Master) Did() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	did := m.did
	m.did = nil
	return did
}

// change notes a change of a path and makes it, unless it is refused.
func (m *Master) change(call, path string, do func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.did = append(m.did, call+" "+path)
	if m.refuses != nil {
		if err := m.refuses(call, path); err != nil {
			return err
		}
	}
	return do()
}

// exists reports whether there is anything at a path; mu is held.
func (m *Master) exists(at string) bool {
	return at == "/" || m.dirs[at] || m.mounts[at] != nil || m.files[at] != nil
}

// below are the paths in a directory, sorted; mu is held.
func (m *Master) below(dir string) []string {
	var found []string
	add := func(at string) {
		if path.Dir(at) == dir && !slices.Contains(found, at) {
			found = append(found, at)
		}
	}
	for at := range m.dirs {
		add(at)
	}
	for at := range m.mounts {
		add(at)
	}
	for at := range m.files {
		add(at)
	}
	slices.Sort(found)
	return found
}

// notThere is how Alluxio says that there is nothing at a path.
func notThere(at string) error {
	return status.Error(codes.NotFound, fmt.Sprintf("Path %q does not exist.", at))
}
