package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/cacheclient/backoff"
	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/pace"
)

// leaderOf is the master that leads.
func leaderOf(tb testing.TB, c *cluster.Cluster) *cluster.Server {
	tb.Helper()
	leader, err := c.Leader(within(tb, time.Minute))
	if err != nil {
		tb.Fatal(err)
	}
	return leader
}

func TestLeaderAmongThree(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	leader := leaderOf(t, c)
	standby := addresses(c)
	standby = slices.DeleteFunc(standby, func(a string) bool { return a == leader.Address() })
	for _, masters := range [][]string{
		{leader.Address()},
		{leader.Address(), standby[0], standby[1]},
		{standby[0], leader.Address(), standby[1]},
		{standby[1], standby[0], leader.Address()},
		{standby[0], leader.Address()},
		{leader.Address(), leader.Address(), "127.0.0.1:1"},
	} {
		begin := time.Now()
		m := connect(t, masters...)
		if got, err := m.Leader(within(t, 10*time.Second)); err != nil || got != leader.Address() {
			t.Errorf("of %v, %q leads (%v), wanted %q", masters, got, err, leader.Address())
		}
		t.Logf("%d masters: the leader is known after %v", len(masters), time.Since(begin))
		info, err := m.MasterInfo(within(t, 10*time.Second))
		// A master that still joins, on a busy machine, is in no list yet.
		for ctx := within(t, time.Minute); err == nil && len(info.Masters) < 3 && ctx.Err() == nil; {
			sleep(ctx, 200*time.Millisecond)
			info, err = m.MasterInfo(within(t, 10*time.Second))
		}
		if err != nil || info.Version != "2.9.6" || len(info.Masters) != 3 ||
			!strings.HasSuffix(info.Leader, leader.Address()[strings.LastIndex(leader.Address(), ":"):]) {
			t.Errorf("%+v, %v", info, err)
		}
	}
}

// pause pauses a master for the test. The next test finds a cluster in which no election is under way.
func pause(tb testing.TB, c *cluster.Cluster, master *cluster.Server) {
	tb.Helper()
	if err := master.Pause(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), pace.Limit(time.Minute))
		defer cancel()
		if err := c.Restore(ctx); err != nil {
			tb.Error(err)
		}
		for last, since := (*cluster.Server)(nil), time.Now(); time.Since(since) < time.Second &&
			ctx.Err() == nil; sleep(ctx, 100*time.Millisecond) {
			if leader, err := c.Leader(ctx); err != nil || leader != last {
				last, since = leader, time.Now()
			}
		}
	})
}

// found is what a client that does nothing else sees of a new leader: when it says that it leads, and when it has
// answered a first lookup.
type found struct{ leads, answers time.Time }

// await polls the masters as directly as can be until one of them leads and answers.
func await(ctx context.Context, t *testing.T, addrs []string) found {
	t.Helper()
	for ; ctx.Err() == nil; sleep(ctx, 5*time.Millisecond) {
		for _, addr := range addrs {
			e := newEndpoint(addr, identity{payload: []byte("\x00watcher\x00x"), transport: insecure.NewCredentials()},
				largestMessage)
			ask, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			err := e.leads(ask)
			cancel()
			f := found{leads: time.Now()}
			if err == nil {
				err = e.Do(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
					_, err := wire.NewFileSystemMasterClientServiceClient(conn).GetStatus(ctx, &wire.GetStatusPRequest{
						Path: proto.String("/"), Options: &wire.GetStatusPOptions{CommonOptions: safe(NeverSync)},
					})
					return err
				})
				f.answers = time.Now()
			}
			e.Close()
			if err == nil {
				return f
			}
		}
	}
	t.Fatal("no master leads")
	return found{}
}

// prompt checks that a call was answered within a second of when the new leader answers at all, which on a busy machine
// is well after it says that it leads.
func (f found) prompt(t *testing.T, since, answered time.Time, allowance time.Duration) {
	t.Helper()
	t.Logf("a new leader says so after %v; a first lookup is answered %v later to a client that does nothing else, "+
		"and %v later to ours",
		f.leads.Sub(since).Round(time.Millisecond), f.answers.Sub(f.leads).Round(time.Millisecond),
		answered.Sub(f.leads).Round(time.Millisecond))
	if late := answered.Sub(f.answers); late > pace.Limit(time.Second)+allowance {
		t.Errorf("the first call is answered %v after the new leader could, wanted within %v", late,
			pace.Limit(time.Second)+allowance)
	}
}

func TestLeaderKilled(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connect(t, addresses(c)...)
	l := startLoad(t, m, loadDir(t, c, m), 32)
	ctx := within(t, 90*time.Second)
	l.firstEndAfter(ctx, t, time.Now())
	leader := leaderOf(t, c)
	killed := time.Now()
	if err := leader.Kill(); err != nil {
		t.Fatal(err)
	}
	there := await(ctx, t, slices.DeleteFunc(addresses(c), func(a string) bool { return a == leader.Address() }))
	there.prompt(t, killed, l.firstEndAfter(ctx, t, killed.Add(200*time.Millisecond)), 0)
	sleep(ctx, 300*time.Millisecond)
	l.stop(t)
}

func TestLeaderPaused(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connect(t, addresses(c)...)
	l := startLoad(t, m, loadDir(t, c, m), 16)
	ctx := within(t, 90*time.Second)
	l.firstEndAfter(ctx, t, time.Now())
	leader := leaderOf(t, c)
	paused := time.Now()
	pause(t, c, leader)
	there := await(ctx, t, slices.DeleteFunc(addresses(c), func(a string) bool { return a == leader.Address() }))
	// The calls at the old leader are suspected after suspectAfter, and it has probePatience to answer.
	there.prompt(t, paused, l.firstEndAfter(ctx, t, paused.Add(time.Second)), suspectAfter+probePatience)
	if err := leader.Resume(); err != nil {
		t.Fatal(err)
	}
	// Two masters think that they lead, for a moment.
	sleep(ctx, 2*time.Second)
	now := time.Now()
	l.firstEndAfter(ctx, t, now)
	l.stop(t)
	if got, err := m.Leader(ctx); err != nil || got == leader.Address() {
		t.Errorf("%q leads (%v); it was paused, and another was found", got, err)
	}
}

// TestOutage kills all masters: calls that come later fail at once, and succeed soon when the masters are back. A block
// whose commit could not be told to them is right all the same.
func TestOutage(t *testing.T) {
	x := newWriting(t)
	c, m := x.c, x.m
	block, err := x.remote()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := block.Write(x.s.content); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Status(within(t, 10*time.Second), "/", NeverSync); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	for _, master := range c.Masters() {
		if err := master.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	// One that comes at the beginning waits as long as it may: it could be an election.
	ctx := endingAfter(t, 2*time.Second)
	_, err = m.Status(ctx, "/", NeverSync)
	if ctx.Err() == nil || !errors.Is(err, cacheclient.ErrUnavailable) ||
		!strings.Contains(err.Error(), "have no master that leads: ") ||
		!strings.Contains(err.Error(), "refuses the connection") {
		t.Errorf("a call at the beginning of the outage, after %v: %v", time.Since(killed), err)
	}
	// So does a block that is to become known to the masters.
	ctx = endingAfter(t, time.Second)
	if err := block.Commit(ctx); !errors.Is(err, context.DeadlineExceeded) || ctx.Err() == nil {
		t.Errorf("a commit while no master answers: %v", err)
	}
	m.Masters.mu.Lock()
	lost := m.lost
	m.Masters.mu.Unlock()
	time.Sleep(time.Until(lost.Add(outagePatience + time.Second)))
	// Nobody asked for a while, so the first of these waits for what the masters say now.
	for i := range 40 {
		begin := time.Now()
		_, err := m.Status(within(t, 10*time.Second), "/", NeverSync)
		if took := time.Since(begin); took > pace.Limit(300*time.Millisecond)+time.Duration(min(i, 1)-1)*-time.Second ||
			!errors.Is(err, cacheclient.ErrUnavailable) {
			t.Errorf("call %d in the outage took %v: %v", i, took, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("after %v: %v", time.Since(killed).Round(time.Millisecond), err)
	var succeeded atomic.Int64
	polling, stop := context.WithCancel(t.Context())
	defer stop()
	var calls sync.WaitGroup
	calls.Go(func() {
		for succeeded.Load() == 0 && polling.Err() == nil {
			ctx, cancel := context.WithTimeout(polling, pace.Limit(10*time.Second))
			if _, err := m.Status(ctx, "/", NeverSync); err == nil {
				succeeded.Store(time.Now().UnixNano())
			}
			cancel()
			sleep(polling, 50*time.Millisecond)
		}
	})
	started := time.Now()
	for _, master := range c.Masters() {
		if err := master.Start(); err != nil {
			t.Fatal(err)
		}
	}
	there := await(within(t, time.Minute), t, addresses(c))
	calls.Wait()
	there.prompt(t, started, time.Unix(0, succeeded.Load()), 0)
	// Whatever became of the block, nobody reads a wrong byte of it.
	r, err := x.w.ReadBlock(within(t, 30*time.Second), x.s.block(0), 0, writeSize, x.s.under(0))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(r); !errors.Is(err, io.EOF) || !bytes.Equal(got, x.s.content) {
		t.Errorf("%d bytes of the block, or others, and %v", len(got), err)
	}
}

// TestOneSearchForAll counts what 200 callers that wait for a leader cost the masters: no more than one.
func TestOneSearchForAll(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	leader := leaderOf(t, c)
	var connections atomic.Int64
	closes := tcpServer(t, countConnections(&connections))
	var counters []*requestCounter
	masters := []string{closes}
	for _, s := range c.Masters() {
		if s != leader {
			rc := countRequests(t, s.Address())
			counters, masters = append(counters, rc), append(masters, rc.addr)
		}
	}
	m := connect(t, masters...)
	const patience = 3 * time.Second
	ctx := endingAfter(t, patience)
	var calls sync.WaitGroup
	for range 200 {
		calls.Go(func() {
			if _, err := m.Status(ctx, "/", NeverSync); !errors.Is(err, cacheclient.ErrUnavailable) {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	// The shortest pauses that there can be: half of each.
	most := int64(1)
	pauses := backoff.Pauses{First: firstPause / 2, Longest: longestPause / 2, Factor: firstPauses.Factor}
	for at := time.Duration(0); at < patience; at += pauses.Next() {
		most++
	}
	for _, rc := range counters {
		t.Logf("a standby was asked %d times over %d connections, at most %d times", rc.requests.Load(),
			rc.connections.Load(), most)
		if rc.requests.Load() > most || rc.requests.Load() < 3 || rc.connections.Load() > 1 {
			t.Errorf("a standby was asked %d times over %d connections in %v, wanted at most %d times over one",
				rc.requests.Load(), rc.connections.Load(), patience, most)
		}
	}
	// There gRPC connects by itself between two questions, too.
	t.Logf("a server that closes was connected to %d times", connections.Load())
	if limit := most + int64(patience/redialPause); connections.Load() > limit {
		t.Errorf("a server that closes was connected to %d times in %v, wanted at most %d", connections.Load(),
			patience, limit)
	}
}

// TestSuspicionIsShared has 100 calls wait for a leader that hangs: the masters are asked once for all of them.
func TestSuspicionIsShared(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	leader := leaderOf(t, c)
	slow := countRequests(t, leader.Address())
	m := connect(t, slow.addr)
	if _, err := m.Status(within(t, 10*time.Second), "/", NeverSync); err != nil {
		t.Fatal(err)
	}
	before := slow.requests.Load()
	pause(t, c, leader)
	ctx := endingAfter(t, suspectAfter+time.Second)
	var calls sync.WaitGroup
	for range 100 {
		calls.Go(func() {
			if _, err := m.Status(ctx, "/", NeverSync); !errors.Is(err, cacheclient.ErrUnavailable) {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	asked := slow.requests.Load() - before - 100
	t.Logf("the leader was asked %d times beside 100 calls", asked)
	if asked < 1 || asked > 4 {
		t.Errorf("the leader was asked %d times beside 100 calls that hang", asked)
	}
}
