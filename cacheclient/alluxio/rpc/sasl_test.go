package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/pace"
)

// idOf is the channel id that a call to the endpoint carries, if the call succeeds.
func idOf(ctx context.Context, e *Endpoint, call func(context.Context, *grpc.ClientConn) error) (string, error) {
	var id string
	err := e.Do(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		out, _ := metadata.FromOutgoingContext(ctx)
		id = strings.Join(out.Get(idHeader), ",")
		return call(ctx, conn)
	})
	return id, err
}

// probe is a call that needs authentication and that any worker answers: the removal of a block that it does not have.
func probe(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := wire.NewBlockWorkerClient(conn).RemoveBlock(ctx, &wire.RemoveBlockRequest{BlockId: proto.Int64(1)})
	if explained := explain("", err); errors.Is(explained, fs.ErrNotExist) {
		return nil
	}
	return err
}

func TestOneHandshakeForAll(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	e := workerAt(t, connect(t, addresses(c)...), c.Workers()[0]).endpoint
	ids := make([]string, 100)
	var calls sync.WaitGroup
	for i := range ids {
		calls.Go(func() {
			var err error
			if ids[i], err = idOf(within(t, 20*time.Second), e, probe); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Fatalf("100 first calls go by the ids %q and %q", ids[0], id)
		}
	}
}

// forget has the server forget an id that we go on using: authenticating it once more throws out its first holder.
func forget(t *testing.T, e *Endpoint, id string) {
	t.Helper()
	other := newEndpoint(e.addr, e.who, largestMessage)
	defer other.Close()
	if _, err := other.shakeHands(within(t, 10*time.Second), id); err == nil {
		t.Fatal("an id was authenticated twice")
	}
}

// TestForgottenIsNoticedByNobody has the server forget us many times: no call fails, and no id is used twice.
func TestForgottenIsNoticedByNobody(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	e := workerAt(t, connect(t, addresses(c)...), c.Workers()[0]).endpoint
	seen := make(map[string]bool)
	for range 5 {
		id, err := idOf(within(t, 10*time.Second), e, probe)
		if err != nil {
			t.Fatal(err)
		}
		if seen[id] {
			t.Errorf("%s is used again", id)
		}
		seen[id] = true
		forget(t, e, id)
		var calls sync.WaitGroup
		for range 20 {
			calls.Go(func() {
				if _, err := idOf(within(t, 10*time.Second), e, probe); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
		// The end of the stream, which we notice, and a call right after it.
		e.mu.Lock()
		s := e.session
		e.mu.Unlock()
		seen[s.id] = true
		s.end()
		if id, err = idOf(within(t, 10*time.Second), e, probe); err != nil || id == s.id {
			t.Errorf("after the end of the stream of %s the call goes by %s: %v", s.id, id, err)
		}
	}
}

// TestForgottenInTheMiddle checks that what is under way when the server forgets us goes on, that what cannot is no
// question of permission, and that the worker keeps neither a lock nor a half-written block.
func TestForgottenInTheMiddle(t *testing.T) {
	x := newWriting(t)
	e := x.w.endpoint
	current := func() *session {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.session
	}
	local, err := x.local()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(local.Path, x.s.content, 0); err != nil {
		t.Fatal(err)
	}
	current().end()
	if err := local.Commit(within(t, 10*time.Second)); !errors.Is(err, cacheclient.ErrUnavailable) ||
		errors.Is(err, fs.ErrPermission) {
		t.Errorf("the commit of a block that was begun before: %v", err)
	}
	x.dropped()
	read := func() *BlockReader {
		r, err := x.w.ReadBlock(within(t, 10*time.Second), x.s.block(0), 0, writeSize, x.s.under(0))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	// Forgotten with our knowledge or without: the read goes on.
	for _, ends := range []func(*session){func(s *session) { s.end() }, func(s *session) { forget(t, e, s.id) }} {
		r := read()
		ends(current())
		if got, err := readAll(r); !errors.Is(err, io.EOF) || !bytes.Equal(got, x.s.content) {
			t.Errorf("a read that was under way: %d bytes, %v", len(got), err)
		}
	}
	// One that ends early lets go of its lock.
	r := read()
	current().end()
	r.Close()
	begin := time.Now()
	if err := x.w.Remove(within(t, 20*time.Second), x.s.block(0)); err != nil ||
		time.Since(begin) > pace.Limit(3*time.Second) {
		t.Errorf("the block cannot be removed: %v after %v", err, time.Since(begin))
	}
}

// TestWorkerComesBack kills a worker and starts it at the same address: the first call after that succeeds.
func TestWorkerComesBack(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	server := c.Workers()[1]
	w := workerAt(t, connect(t, addresses(c)...), server)
	before, err := idOf(within(t, 10*time.Second), w.endpoint, probe)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for range brokenAfter {
		if err := w.Remove(within(t, 5*time.Second), 1); !errors.Is(err, cacheclient.ErrUnavailable) {
			t.Errorf("a call to a dead worker: %v", err)
		}
	}
	if took := time.Since(begin); took > pace.Limit(2*time.Second) || !w.Broken() {
		t.Errorf("%d failures took %v, and then the worker counts as broken: %v", brokenAfter, took, w.Broken())
	}
	if err := c.Restore(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	// gRPC connects again by itself.
	time.Sleep(2 * redialPause)
	after, err := idOf(within(t, 10*time.Second), w.endpoint, probe)
	if err != nil || after == before {
		t.Errorf("the first call after the worker came back: %v; it goes by %q, before by %q", err, after, before)
	}
	if _, err := w.Locate(within(t, 5*time.Second), 1); !NotCached(err) || w.Broken() {
		t.Errorf("a clear answer (%v) leaves the worker broken: %v", err, w.Broken())
	}
}

func TestRefusedUser(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connectAs(t, Security{User: "somebody", Impersonate: "another"}, addresses(c)...)
	for name, err := range map[string]error{
		"master": m.Check(within(t, 10*time.Second)),
		"worker": workerAt(t, m, c.Workers()[0]).Remove(within(t, 10*time.Second), 1),
	} {
		if !errors.Is(err, fs.ErrPermission) || errors.Is(err, cacheclient.ErrUnavailable) ||
			!strings.Contains(err.Error(), `refuses the user`) ||
			!strings.Contains(err.Error(), `User "somebody" is not configured to allow any impersonation`) {
			t.Errorf("%s: %v, wanted fs.ErrPermission with the reason", name, err)
		}
	}
}

// TestServersOfOtherSettings runs two clusters of one master: one that wants no authentication and waits for workers,
// and one that forgets ids by itself all the time, as every server does after three days.
func TestServersOfOtherSettings(t *testing.T) {
	t.Run("no authentication", func(t *testing.T) {
		t.Parallel()
		c := cluster.ForTest(t, cluster.Config{Masters: 1, NoWorkers: true, Properties: map[string]string{
			"alluxio.security.authentication.type":    "NOSASL",
			"alluxio.master.worker.connect.wait.time": "8sec",
		}})
		m := connect(t, addresses(c)...)
		if err := m.Check(within(t, 10*time.Second)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.UFS(), "x"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := m.Status(within(t, 10*time.Second), "/x", AlwaysSync); err != nil || f.GetLength() != 1 {
			t.Errorf("%v, %v", f, err)
		}
		if err := c.Masters()[0].Kill(); err != nil {
			t.Fatal(err)
		}
		if err := c.Masters()[0].Start(); err != nil {
			t.Fatal(err)
		}
		safeMode(t, m)
	})
	t.Run("purges", func(t *testing.T) {
		t.Parallel()
		c := cluster.ForTest(t, cluster.Config{Masters: 1, NoWorkers: true, Properties: map[string]string{
			"alluxio.security.stale.channel.purge.interval": "1sec",
		}})
		m := connect(t, addresses(c)...)
		ids := make(map[string]bool)
		for range 2 {
			if _, err := m.Status(within(t, 10*time.Second), "/", NeverSync); err != nil {
				t.Error(err)
			}
			e := m.endpoints[0]
			e.mu.Lock()
			ids[e.session.id] = true
			e.mu.Unlock()
			time.Sleep(2500 * time.Millisecond)
		}
		if len(ids) < 2 {
			t.Error("the server forgot no id: this tested nothing")
		}
	})
}

// safeMode checks what a leader in safe mode means, which it is for some seconds after each failover unless the
// property alluxio.master.worker.connect.wait.time says otherwise: it tells nothing of workers nor of files, because
// that is where their blocks are, and is no less the leader for it.
func safeMode(t *testing.T, m *Cluster) {
	t.Helper()
	ctx := within(t, 90*time.Second)
	if _, err := m.Status(ctx, "/", NeverSync); err != nil {
		t.Fatal(err)
	}
	if info, err := m.MasterInfo(ctx); err != nil || !info.SafeMode {
		t.Fatalf("the master is past its safe mode (%v, %v): this tests nothing", info, err)
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for name, call := range map[string]func() error{
		"workers": func() error { _, err := m.WorkerInfos(short); return err },
		"a file":  func() error { _, err := m.Status(short, "/x", NeverSync); return err },
	} {
		if err := call(); !errors.Is(err, cacheclient.ErrUnavailable) ||
			!strings.Contains(err.Error(), "safe mode") && !strings.Contains(err.Error(), "in time") {
			t.Errorf("%s of a leader in safe mode: %v", name, err)
		}
	}
	m.Masters.mu.Lock()
	known := m.leader != nil
	m.Masters.mu.Unlock()
	if !known {
		t.Error("a leader in safe mode is forgotten")
	}
}
