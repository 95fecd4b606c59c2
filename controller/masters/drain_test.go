package masters

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/sanity/fakemaster"
)

// drained is a worker that notes what it is asked to copy and to drop.
type drained struct {
	wire.UnimplementedBlockWorkerServer

	host string
	port int32

	mu               sync.Mutex // guards what follows
	fetched, dropped []int64
	// refuses is what it says to a copy and to a drop.
	refuses error
}

// newDrained is a worker at an address of the loopback.
func newDrained(t *testing.T, host string) *drained {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	at, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("%s is no port", l.Addr())
	}
	w, server := &drained{host: host, port: int32(at.Port)}, grpc.NewServer()
	wire.RegisterBlockWorkerServer(server, w)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	return w
}

// Cache notes a copy of a block.
func (w *drained) Cache(_ context.Context, q *wire.CacheRequest) (*wire.CacheResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuses == nil {
		w.fetched = append(w.fetched, q.GetBlockId())
	}
	return &wire.CacheResponse{}, w.refuses
}

// RemoveBlock notes that a block is dropped.
func (w *drained) RemoveBlock(_ context.Context, q *wire.RemoveBlockRequest) (*wire.RemoveBlockResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuses == nil {
		w.dropped = append(w.dropped, q.GetBlockId())
	}
	return &wire.RemoveBlockResponse{}, w.refuses
}

// noted are the blocks that it was asked to copy and to drop, sorted.
func (w *drained) noted() (fetched, dropped []int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.fetched)
	slices.Sort(w.dropped)
	return w.fetched, w.dropped
}

// blockLength is that of all blocks of these tests.
const blockLength = 100

// blocksOn is a file of which these workers have these blocks. Its n-th block has the id n.
func blocksOn(file int64, on ...[]*drained) *wire.FileInfo {
	const sequence = 24
	f := &wire.FileInfo{
		FileId: proto.Int64(file<<sequence | (1<<sequence - 1)), Length: proto.Int64(int64(len(on)) * blockLength),
		BlockSizeBytes: proto.Int64(blockLength), InAlluxioPercentage: proto.Int32(50),
	}
	for k, workers := range on {
		id := file<<sequence | int64(k)
		info := &wire.BlockInfo{BlockId: &id, Length: proto.Int64(blockLength)}
		for _, w := range workers {
			info.Locations = append(info.Locations, &wire.BlockLocation{WorkerAddress: &wire.WorkerNetAddress{
				Host: &w.host, RpcPort: &w.port, DataPort: &w.port,
			}})
		}
		f.BlockIds = append(f.BlockIds, id)
		f.FileBlockInfos = append(f.FileBlockInfos, &wire.FileBlockInfo{
			Offset: proto.Int64(int64(k) * blockLength), BlockInfo: info,
		})
	}
	return f
}

// TestDrain copies what only the workers that leave have to one that stays, as far as there is room. Those that leave
// drop all that they hold.
func TestDrain(t *testing.T) {
	const only, both, stays = 1 << 24, 2 << 24, 3 << 24
	for name, tc := range map[string]struct {
		room    int64
		prepare func(leaves, stays *drained)
		leaving []string
		want    Drain
		says    string
		fetched []int64
		dropped []int64
	}{
		"there is room": {
			1000, nil,
			[]string{"127.0.0.2"},
			Drain{Only: 1, Moved: 1, MovedBytes: blockLength},
			"",
			[]int64{only},
			[]int64{only, both},
		},
		"there is none": {
			blockLength - 1, nil, []string{"127.0.0.2"}, Drain{Only: 1}, "have no more room", nil, []int64{only, both},
		},
		"a copy fails": {
			1000, func(_, stays *drained) { stays.refuses = status.Error(codes.Internal, "disk full") },
			[]string{"127.0.0.2"},
			Drain{Only: 1},
			"/a/only: ", nil,
			[]int64{only, both},
		},
		"a block is not dropped": {
			1000, func(leaves, _ *drained) { leaves.refuses = status.Error(codes.Internal, "locked") },
			[]string{"127.0.0.2"},
			Drain{Only: 1, Moved: 1, MovedBytes: blockLength},
			"is not dropped",
			[]int64{only},
			nil,
		},
		"a block is dropped already": {
			1000, func(leaves, _ *drained) { leaves.refuses = status.Error(codes.NotFound, "no such block") },
			[]string{"127.0.0.2"},
			Drain{Only: 1, Moved: 1, MovedBytes: blockLength},
			"",
			[]int64{only},
			nil,
		},
		"no worker stays": {
			1000, nil, []string{"127.0.0.2", "127.0.0.3"}, Drain{}, "no worker stays", nil, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, leaves, remains := newMaster(t), newDrained(t, "127.0.0.2"), newDrained(t, "127.0.0.3")
			if tc.prepare != nil {
				tc.prepare(leaves, remains)
			}
			m.SetWorkers(fakemaster.Worker{Host: leaves.host, Port: leaves.port, Capacity: 1000, Used: 200},
				fakemaster.Worker{Host: remains.host, Port: remains.port, Capacity: 2000, Used: 2000 - tc.room})
			m.Mounted("/a", "s3://a", nil)
			m.Put("/a/only", blocksOn(only>>24, []*drained{leaves}))
			m.Put("/a/both", blocksOn(both>>24, []*drained{leaves, remains}))
			m.Put("/a/stays", blocksOn(stays>>24, []*drained{remains}))
			c, told := newClusters()
			c.Want(key, Want{
				Masters: []string{m.Address()}, User: "root", Mounts: mountsOf("/a=s3://a"), Leaving: tc.leaving,
			})
			c.drain(t.Context(), c.byKey[key])
			d := c.State(key).Drain
			if !d.Done || !d.of(tc.leaving) || d.Only != tc.want.Only || d.Moved != tc.want.Moved ||
				d.MovedBytes != tc.want.MovedBytes || !strings.Contains(d.Why, tc.says) || (d.Why == "") != (tc.says == "") {
				t.Errorf("%+v", d)
			}
			fetched, _ := remains.noted()
			_, dropped := leaves.noted()
			if !slices.Equal(fetched, tc.fetched) || !slices.Equal(dropped, tc.dropped) {
				t.Errorf("copied are %v, dropped %v", fetched, dropped)
			}
			if *told != 1 {
				t.Errorf("it was told %d times that it is over", *told)
			}
		})
	}
}

// TestDrainEndsWithItsMaster says why nothing was copied where no master answers.
func TestDrainEndsWithItsMaster(t *testing.T) {
	m := newMaster(t)
	m.Follow(true)
	c, _ := newClusters()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.Want(key, Want{Masters: []string{m.Address()}, User: "root", Leaving: []string{"127.0.0.2"}})
	c.drain(ctx, c.byKey[key])
	if d := c.State(key).Drain; !d.Done || d.Why == "" {
		t.Errorf("%+v", d)
	}
}

// TestNothingToLoadInto says that a Dataset has no Alluxio yet, or no worker, and not that it is loaded.
func TestNothingToLoadInto(t *testing.T) {
	c, _ := newClusters()
	load := func() error { return c.Load(t.Context(), key, []Target{{Path: "/a"}}, false, func(Progress) {}) }
	if err := load(); !errors.Is(err, ErrUnknown) {
		t.Errorf("of a Dataset that is not known: %v", err)
	}
	m := newMaster(t)
	m.Mounted("/a", "s3://a", nil)
	c.Want(key, Want{Masters: []string{m.Address()}, User: "root"})
	if err := load(); err == nil || !strings.Contains(err.Error(), "no worker is there to load into") {
		t.Errorf("without a worker: %v", err)
	}
}
