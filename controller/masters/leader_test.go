package masters

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/sanity/faultproxy"
	"millrace.io/millrace/sanity/liar/fakealluxio"
	"millrace.io/millrace/sanity/pace"
)

// TestFrozenLeader begins a round when the only master stops to answer, and when it goes on, without an event of
// Kubernetes; and none while it does what the last round found.
func TestFrozenLeader(t *testing.T) {
	fake, err := fakealluxio.Start(fakealluxio.Config{Root: t.TempDir(), Tier: t.TempDir(), BlockSize: 512})
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	target := strings.TrimSuffix(strings.TrimPrefix(fake.Address(), "alluxio://"), "/")
	proxy, err := faultproxy.Start(t.Context(), "127.0.0.1:0", target)
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	c := &Clusters{Log: slog.New(slog.DiscardHandler), Probe: 20 * time.Millisecond}
	c.mu.Lock()
	c.init()
	c.mu.Unlock()
	master := proxy.Address()
	cl := &cluster{kick: make(chan struct{}, 1), look: make(chan struct{}, 1), want: Want{Masters: []string{master}}}
	found := func(roles map[string]rpc.Role) {
		cl.mu.Lock()
		defer cl.mu.Unlock()
		cl.state = State{Asked: true, Roles: roles}
	}
	leading := map[string]rpc.Role{master: rpc.Leading}
	found(leading)
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() { c.watchLeader(ctx, cl) })

	asked := func(times int64) {
		t.Helper()
		goal, until := proxy.Stats().Accepted+times, time.Now().Add(pace.Limit(30*time.Second))
		for ; proxy.Stats().Accepted < goal; time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Fatal("the master is not asked")
			}
		}
	}
	asked(3)
	if len(cl.kick) > 0 {
		t.Error("a round begins although nothing has changed")
	}
	begins := func(when string) {
		t.Helper()
		select {
		case <-cl.kick:
		case <-time.After(pace.Limit(30 * time.Second)):
			t.Fatalf("%s: no round begins", when)
		}
	}
	proxy.Set(faultproxy.Faults{StallUp: true, StallDown: true})
	begins("frozen")
	found(nil)
	// A round that was begun before that is none that begins after it.
	asked(2)
	for len(cl.kick) > 0 {
		<-cl.kick
	}
	proxy.Set(faultproxy.Faults{})
	begins("going on")
}
