package fakealluxio

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// Config says what a fake shows.
type Config struct {
	// Root is the directory that it shows as "/", Tier an empty one for its blocks.
	Root, Tier string
	// BlockSize is that of all files, in bytes.
	BlockSize int64
	// Source is what the mount table names as the directory's own source; the directory by default, "-" for none that
	// a client can read.
	Source string
	// Host is the name that the worker goes by; "localhost" by default, and then its tier is read by clients of this
	// machine.
	Host string
	// Gone are hosts and ports of workers that are listed and are not there.
	Gone []string
	// Claims is what is told for a file's size, in place of the size; nil, or false, is the size.
	Claims func(path string) (int64, bool)
	// Retells changes what is told of the entries of a directory; nil tells what is true.
	Retells func(dir string, entries []*wire.FileInfo)
	// Refuses is the error of a call about a path, in place of an answer; nil answers.
	Refuses func(call, path string) error
	// Dice draws for one answer: call names it, as "GetStatus", and path the file, "" for what concerns all. nil
	// tells the truth.
	Dice func(call, path string) *rand.Rand
}

// Fake is a master and a worker.
type Fake struct {
	wire.UnimplementedServiceVersionClientServiceServer
	wire.UnimplementedMetaMasterClientServiceServer
	wire.UnimplementedFileSystemMasterClientServiceServer
	wire.UnimplementedBlockMasterClientServiceServer
	wire.UnimplementedBlockWorkerServer
	wire.UnimplementedMetricsMasterClientServiceServer

	cfg    Config
	server *grpc.Server
	served chan struct{}
	port   int32
	// life ends with Close, and with it answers that never come.
	life context.Context
	end  context.CancelFunc

	// mu guards the rest.
	mu sync.Mutex
	// ids are the numbers of versions by what tells them apart, and versions what each number stands for.
	ids      map[string]int64
	versions []known
	// writing are the blocks that are being written.
	writing map[int64]bool
}

// known is a version that a number was given to.
type known struct{ path string }

// Start serves on a port of the loopback.
func Start(cfg Config) (*Fake, error) {
	if cfg.Host == "" {
		cfg.Host = "localhost"
	}
	if cfg.Source == "" {
		cfg.Source = cfg.Root
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	at, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s is no port", listener.Addr()), listener.Close())
	}
	f := &Fake{
		cfg: cfg, server: grpc.NewServer(), served: make(chan struct{}), ids: map[string]int64{},
		writing: map[int64]bool{},
		port:    int32(at.Port),
	}
	f.life, f.end = context.WithCancel(context.Background())
	wire.RegisterServiceVersionClientServiceServer(f.server, f)
	wire.RegisterMetaMasterClientServiceServer(f.server, f)
	wire.RegisterFileSystemMasterClientServiceServer(f.server, f)
	wire.RegisterBlockMasterClientServiceServer(f.server, f)
	wire.RegisterMetricsMasterClientServiceServer(f.server, f)
	wire.RegisterBlockWorkerServer(f.server, f)
	go func() {
		defer close(f.served)
		_ = f.server.Serve(listener)
	}()
	return f, nil
}

// Close ends it.
func (f *Fake) Close() error {
	f.end()
	f.server.Stop()
	<-f.served
	return nil
}

// Address is the source for a client.
func (f *Fake) Address() string { return fmt.Sprintf("alluxio://127.0.0.1:%d/", f.port) }

// dice draws for an answer, nil to tell the truth.
func (f *Fake) dice(call, of string) *rand.Rand {
	if f.cfg.Dice == nil {
		return nil
	}
	return f.cfg.Dice(call, of)
}

// refuses is the error that the configuration has for a call.
func (f *Fake) refuses(call, path string) error {
	if f.cfg.Refuses == nil {
		return nil
	}
	return f.cfg.Refuses(call, path)
}

// workerAddress is the worker's.
func (f *Fake) workerAddress() *wire.WorkerNetAddress {
	return &wire.WorkerNetAddress{
		Host: &f.cfg.Host, ContainerHost: proto.String("127.0.0.1"), RpcPort: &f.port,
		DataPort: &f.port,
	}
}

// relative is a path of the name space without the slash before it.
func relative(alluxio string) string { return strings.TrimPrefix(path.Clean("/"+alluxio), "/") }

// local is where a file is on this machine.
func (f *Fake) local(rel string) string { return filepath.Join(f.cfg.Root, filepath.FromSlash(rel)) }

const (
	// sequence are the bits of a block's id below the file's number.
	sequence = 24
	whole    = 1<<sequence - 1
)

// number gives a version its number.
func (f *Fake) number(rel string, st *unix.Stat_t) int64 {
	what := fmt.Sprintf("%s %d %d.%d %d", rel, st.Ino, st.Mtim.Sec, st.Mtim.Nsec, st.Size)
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.ids[what]
	if !ok {
		f.versions = append(f.versions, known{rel})
		n = int64(len(f.versions))
		f.ids[what] = n
	}
	return n
}

// pathOf is the path of the file that a block is of, "" where no such block was told of.
func (f *Fake) pathOf(block int64) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := block >> sequence
	if n < 1 || n > int64(len(f.versions)) {
		return ""
	}
	return f.versions[n-1].path
}

// tiered is the file of a block in the tier.
func (f *Fake) tiered(block int64) string {
	return filepath.Join(f.cfg.Tier, strconv.FormatInt(block, 10))
}

// has reports whether the tier has a block.
func (f *Fake) has(block int64) bool {
	_, err := os.Stat(f.tiered(block))
	return err == nil
}

// Keeps reports whether the tier has all blocks of a file.
func (f *Fake) Keeps(rel string) bool {
	info, err := f.info(rel)
	if err != nil {
		return false
	}
	for _, id := range info.GetBlockIds() {
		if !f.has(id) {
			return false
		}
	}
	return true
}

// at is where a block is.
func (f *Fake) at(block int64) []*wire.BlockLocation {
	if !f.has(block) {
		return nil
	}
	return []*wire.BlockLocation{{
		WorkerId: proto.Int64(1), WorkerAddress: f.workerAddress(), TierAlias: proto.String("MEM"),
		MediumType: proto.String("MEM"),
	}}
}

// info is what is true of a path.
func (f *Fake) info(rel string) (*wire.FileInfo, error) {
	var st unix.Stat_t
	if err := unix.Stat(f.local(rel), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: "/" + rel, Err: err}
	}
	name := path.Base("/" + rel)
	if rel == "" {
		name = ""
	}
	i := &wire.FileInfo{
		Name: &name, Path: proto.String("/" + rel), UfsPath: proto.String(f.local(rel)), MountId: proto.Int64(1),
		Completed: proto.Bool(true), Persisted: proto.Bool(true),
		Mode: proto.Int32(int32(st.Mode & 0o777)), LastModificationTimeMs: proto.Int64(time.Unix(st.Mtim.Sec,
			st.Mtim.Nsec).UnixMilli()), Length: proto.Int64(0),
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		i.Folder, i.FileId = proto.Bool(true), proto.Int64(int64(st.Ino)<<sequence|whole)
		return i, nil
	}
	n, size := f.number(rel, &st)<<sequence, st.Size
	if f.cfg.Claims != nil {
		if claim, ok := f.cfg.Claims(rel); ok {
			size = claim
		}
	}
	i.FileId, i.Length, i.BlockSizeBytes = proto.Int64(n|whole), &size, proto.Int64(f.cfg.BlockSize)
	for k := int64(0); k*f.cfg.BlockSize < min(size, 1<<10*f.cfg.BlockSize); k++ {
		id, length := n|k, min(f.cfg.BlockSize, size-k*f.cfg.BlockSize)
		i.BlockIds = append(i.BlockIds, id)
		i.FileBlockInfos = append(i.FileBlockInfos, &wire.FileBlockInfo{
			Offset: proto.Int64(k * f.cfg.BlockSize), BlockInfo: &wire.BlockInfo{
				BlockId: &id, Length: &length,
				Locations: f.at(id),
			},
		})
	}
	return i, nil
}
