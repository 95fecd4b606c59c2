package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/sanity/pace"
)

// nobodys are workers of masters that are never asked.
func nobodys(t *testing.T) *Workers {
	t.Helper()
	security, err := Security{User: "nobody"}.complete()
	if err != nil {
		t.Fatal(err)
	}
	who, err := security.identity()
	if err != nil {
		t.Fatal(err)
	}
	m, err := newMasters([]string{"127.0.0.1:1"}, who, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ws := newWorkers(m, who)
	t.Cleanup(func() {
		m.close()
		ws.close()
	})
	return ws
}

// TestNamedWorkersCostLittle names 3,000 workers: until one is asked something it is a few hundred bytes and no
// goroutine.
func TestNamedWorkersCostLittle(t *testing.T) {
	ws := nobodys(t)
	measure := func() (int64, int) {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc + s.StackInuse), runtime.NumGoroutine()
	}
	bytes, routines := measure()
	const n = 3000
	for i := range n {
		if _, err := ws.At(workerAddress(fmt.Sprintf("10.1.%d.%d", i/250, i%250), 29999)); err != nil {
			t.Fatal(err)
		}
	}
	b, r := measure()
	if each := (b - bytes) / n; each > 2<<10 || r > routines+10 {
		t.Errorf("a worker that is only named costs %d bytes, and %d have %d goroutines", each, n, r-routines)
	}
}

// TestWorkersAreForgotten lets go of workers that no master names any more, whatever their number, and keeps those that
// are.
func TestWorkersAreForgotten(t *testing.T) {
	noMoreGoroutines(t)
	ws := nobodys(t)
	kept, _ := ws.At(workerAddress("kept", 1))
	gone, _ := ws.At(workerAddress("gone", 1))
	gone.mu.Lock()
	gone.told = time.Now().Add(-2 * forgetAfter)
	gone.mu.Unlock()
	if w, _ := ws.At(workerAddress("kept", 1)); w != kept {
		t.Error("a worker that is named twice is two")
	}
	ws.mu.Lock()
	// It is long that masters list workers.
	ws.since, ws.last = time.Now().Add(-2*forgetAfter), time.Now()
	ws.forgetOld(time.Now())
	n := ws.byAddr.Len()
	ws.mu.Unlock()
	if n != 1 {
		t.Errorf("%d workers are known, and one of two was named lately", n)
	}
	err := gone.Greet(within(t, 5*time.Second))
	if !errors.Is(err, cacheclient.ErrUnavailable) || errors.Is(err, cacheclient.ErrClosed) {
		t.Errorf("a worker that is forgotten: %v", err)
	}
	again, err := ws.At(workerAddress("gone", 1))
	if err != nil || again == gone {
		t.Errorf("a worker that comes back is the one that was closed: %v", err)
	}
	for i := range mostWorkers + 100 {
		if _, err := ws.At(workerAddress(fmt.Sprintf("h%d", i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if n := ws.byAddr.Len(); n > mostWorkers {
		t.Errorf("%d workers are known, more than %d", n, mostWorkers)
	}
}

// TestAnOutageForgetsNoWorker: workers that no master named while none answered are known until it has listed others
// for long.
func TestAnOutageForgetsNoWorker(t *testing.T) {
	ws := nobodys(t)
	w, _ := ws.At(workerAddress("w", 1))
	told := time.Now()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	back := told.Add(3 * forgetAfter)
	for now := back; now.Before(back.Add(forgetAfter)); now = now.Add(forgetAfter / 10) {
		if ws.forgetOld(now); ws.byAddr.Len() != 1 {
			t.Fatalf("%s is forgotten %v after an outage", w.Addr(), now.Sub(back))
		}
	}
	if ws.forgetOld(back.Add(forgetAfter)); ws.byAddr.Len() != 0 {
		t.Error("it is never forgotten")
	}
}

// TestAWorkerComesBackElsewhere has an address belong to another node after a restart: its name and its data port are
// new.
func TestAWorkerComesBackElsewhere(t *testing.T) {
	ws := nobodys(t)
	named := func(host string, data int32) *wire.WorkerNetAddress {
		return &wire.WorkerNetAddress{
			Host: &host, ContainerHost: proto.String("10.1.2.3"), RpcPort: proto.Int32(29999),
			DataPort: &data,
		}
	}
	w, err := ws.At(named("node-a", 1))
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := ws.At(named("node-b", 2)); again != w || w.Host() != "node-b" || w.named().GetDataPort() != 2 {
		t.Errorf("the worker is on %s with data port %d", w.Host(), w.named().GetDataPort())
	}
}

// TestBusyIsNotDown has a worker be too busy again and again: it is not left alone for that.
func TestBusyIsNotDown(t *testing.T) {
	w := newWorker(nil, nil)
	for range 10 * brokenAfter {
		w.outcome(explain("w:1", status.Error(codes.ResourceExhausted, "too many requests")))
	}
	if w.Broken() {
		t.Error("a worker that says that it is busy is left alone as if it were down")
	}
	w.outcome(&Unreachable{})
	w.outcome(&Unreachable{})
	w.outcome(&Unreachable{busy: true})
	w.outcome(&Unreachable{})
	if !w.Broken() {
		t.Error("a worker that does not answer is not left alone because it was busy once between")
	}
}

// telling is a leading master whose listings are what a function sends.
type telling struct {
	versioned
	wire.UnimplementedFileSystemMasterClientServiceServer
	list func(send func(names ...string) error) error
}

func (l telling) ListStatus(_ *wire.ListStatusPRequest, s grpc.ServerStreamingServer[wire.ListStatusPResponse]) error {
	return l.list(func(names ...string) error {
		var batch wire.ListStatusPResponse
		for _, name := range names {
			batch.FileInfos = append(batch.FileInfos, &wire.FileInfo{
				Name:   proto.String(name),
				Folder: proto.Bool(true),
			})
		}
		return s.Send(&batch)
	})
}

// tell is a connection to a master whose listings are what the function sends.
func tell(t *testing.T, list func(send func(names ...string) error) error) *Cluster {
	t.Helper()
	return connect(t, grpcServer(t, func(s *grpc.Server) {
		l := telling{versioned: versioned{version: "2.9.6"}, list: list}
		l.register(s)
		wire.RegisterFileSystemMasterClientServiceServer(s, l)
	}))
}

// TestAListingMayTakeLong ends a listing by silence and not by how long it takes: entries that come one by one are
// all taken, and a master that sends nothing, or messages without entries, is given up.
func TestAListingMayTakeLong(t *testing.T) {
	const patience = 200 * time.Millisecond
	ctx, heard, stop := untilQuiet(t.Context(), patience)
	defer stop()
	for begin := time.Now(); time.Since(begin) < 5*patience; time.Sleep(patience / 20) {
		heard()
		if ctx.Err() != nil {
			t.Fatalf("it ended after %v while something came", time.Since(begin))
		}
	}
	select {
	case <-ctx.Done():
	case <-time.After(pace.Limit(10 * time.Second)):
		t.Fatal("silence does not end it")
	}
	if !errors.Is(context.Cause(ctx), errQuiet) {
		t.Errorf("it ended because of %v", context.Cause(ctx))
	}
}

// TestNamesThatCannotBe has a master tell names that no directory can have among others: those are told, each once.
func TestNamesThatCannotBe(t *testing.T) {
	m := tell(t, func(send func(names ...string) error) error {
		return errors.Join(send("a", "", "."), send("..", "b/c", "x\x00y"), send(), send("caf\xe9", "z"))
	})
	var got []string
	err := m.List(within(t, 10*time.Second), "/d", NeverSync, func() error { return nil },
		func(f *wire.FileInfo) error {
			got = append(got, f.GetName())
			return nil
		})
	if err != nil || fmt.Sprintf("%q", got) != `["a" "caf\xe9" "z"]` {
		t.Errorf("%q, %v", got, err)
	}
}

// TestAListingWithoutEnd gives up a listing that has more entries than any directory, at the reader's word or at the
// limit.
func TestAListingWithoutEnd(t *testing.T) {
	var sending sync.WaitGroup
	sending.Add(1)
	m := tell(t, func(send func(names ...string) error) error {
		defer sending.Done()
		for {
			if err := send("again", "and", "again"); err != nil {
				return err
			}
		}
	})
	n := 0
	err := m.List(within(t, 10*time.Second), "/d", NeverSync, func() error { return nil }, func(*wire.FileInfo) error {
		if n++; n == 1000 {
			return io.EOF
		}
		return nil
	})
	if !errors.Is(err, io.EOF) || n != 1000 {
		t.Errorf("%d entries were taken, %v", n, err)
	}
	// The master learns that its listener is gone.
	sending.Wait()
}

// refusing is a leading master that refuses one path.
type refusing struct{ telling }

func (refusing) GetStatus(_ context.Context, q *wire.GetStatusPRequest) (*wire.GetStatusPResponse, error) {
	if q.GetPath() == "/bad" {
		return nil, status.Error(codes.Unavailable, "its under store is being mended")
	}
	return &wire.GetStatusPResponse{FileInfo: &wire.FileInfo{Folder: proto.Bool(true)}}, nil
}

// TestOnePathIsRefused has the leader refuse one path: calls of others go on without a search for another leader, and
// the error says that it is this call's.
func TestOnePathIsRefused(t *testing.T) {
	pace.Long(t)
	m := connect(t, grpcServer(t, func(s *grpc.Server) {
		r := refusing{telling{versioned: versioned{version: "2.9.6"}}}
		r.register(s)
		wire.RegisterFileSystemMasterClientServiceServer(s, r)
	}))
	_, err := m.Status(endingAfter(t, 3*time.Second), "/bad", NeverSync)
	if !errors.Is(err, ErrRefused) || !errors.Is(err, cacheclient.ErrUnavailable) {
		t.Errorf("a path that is refused: %v", err)
	}
	refused := make(chan struct{})
	go func() {
		defer close(refused)
		_, _ = m.Status(endingAfter(t, 2*time.Second), "/bad", NeverSync)
	}()
	for done := false; !done; {
		select {
		case <-refused:
			done = true
		default:
			if _, err := m.Status(within(t, 5*time.Second), "/good", NeverSync); err != nil {
				t.Fatalf("another path beside it: %v", err)
			}
		}
	}
}
