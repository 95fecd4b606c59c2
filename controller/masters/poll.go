package masters

import (
	"context"
	"math"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// roundPatience bounds one round.
const roundPatience = 20 * time.Second

// follow asks in rounds until the context ends.
func (c *Clusters) follow(ctx context.Context, cl *cluster) {
	// beside are the walk and the drain, which take longer than a round.
	var beside sync.WaitGroup
	defer beside.Wait()
	pauses := c.pauses()
	for {
		timer := time.NewTimer(pauses.Step())
		select {
		case <-cl.kick:
			timer.Stop()
			pauses = c.pauses()
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		select {
		case c.places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		next := c.round(ctx, cl)
		<-c.places
		if next.changed {
			pauses = c.pauses()
			c.Notify(cl.key)
		}
		if next.walk {
			beside.Go(func() { c.walk(ctx, cl) })
		}
		if next.drain {
			beside.Go(func() { c.drain(ctx, cl) })
		}
	}
}

// pauses are those between the rounds while nothing changes: from Fast to Slow, cut by up to a quarter by chance.
func (c *Clusters) pauses() *wait.Backoff {
	const spread = 0.25
	cut := func(d time.Duration) time.Duration { return time.Duration(float64(d) * (1 - spread)) }
	return &wait.Backoff{
		Duration: cut(c.Fast), Cap: cut(c.Slow), Factor: 2, Jitter: spread / (1 - spread),
		Steps: math.MaxInt,
	}
}

// next is what is to be done after a round.
type next struct{ changed, walk, drain bool }

// round asks once, and tells what is to be done after it.
func (c *Clusters) round(ctx context.Context, cl *cluster) next {
	ctx, cancel := context.WithTimeout(ctx, roundPatience)
	defer cancel()
	cl.mu.Lock()
	want, before := cl.want, cl.state
	cl.mu.Unlock()
	state := c.ask(ctx, want)
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if !reflect.DeepEqual(cl.want.Mounts, want.Mounts) {
		state.Mounted = false
	}
	state.Sized, state.Total, state.Files, state.Drain = cl.state.Sized, cl.state.Total, cl.state.Files, cl.state.Drain
	state.Sources = cl.state.Sources
	if state.Err != "" {
		// What was known stays known while no master answers.
		state.Capacity, state.Used, state.Mounted, state.Reads = before.Capacity, before.Used, before.Mounted,
			before.Reads
	}
	if len(want.Leaving) == 0 {
		state.Drain = Drain{}
	}
	asked := state
	asked.Reads = cl.state.Reads
	var n next
	n.changed = !reflect.DeepEqual(cl.state, asked) || state.Reads.tell(cl.state.Reads)
	if before := cl.state; before.Err != state.Err || before.Mounted != state.Mounted ||
		!reflect.DeepEqual(before.Roles, state.Roles) {
		cl.lookSoon()
	}
	cl.state = state
	n.walk = want.Sizes && state.Mounted && state.Err == "" && !cl.walking && time.Since(cl.walked) > walkEvery
	cl.walking = cl.walking || n.walk
	n.drain = len(want.Leaving) > 0 && state.Err == "" && !cl.draining && !state.Drain.of(want.Leaving)
	cl.draining = cl.draining || n.drain
	return n
}

// ask is one round's questions and repairs.
func (c *Clusters) ask(ctx context.Context, want Want) State {
	if want.Idle {
		return State{Err: "no pod of Alluxio runs yet"}
	}
	state := State{Asked: true}
	conn, err := connect(want, c.Log)
	if err != nil {
		state.Err = err.Error()
		return state
	}
	defer conn.Release()
	state.Roles = conn.Roles(ctx)
	switch leaders := leading(state.Roles); {
	case len(leaders) == 0:
		state.Err = "no master of " + strings.Join(want.Masters, ", ") + " says that it leads"
		return state
	case len(leaders) > 1:
		state.Disagree = true
		state.Err = strings.Join(leaders, " and ") + " lead, each for itself: these masters are not one Alluxio"
		return state
	}
	info, err := conn.MasterInfo(ctx)
	if err == nil {
		state.Leader = leaderName(info.Leader)
		err = numbers(ctx, conn, want.Reserved, &state)
	}
	if err == nil {
		state.Reads, err = reads(ctx, conn)
	}
	if err != nil {
		state.Err = err.Error()
		return state
	}
	if want.Empty {
		if err := conn.Free(ctx, "/", true); err != nil {
			state.EmptyErr = err.Error()
		}
		state.Emptied = state.EmptyErr == "" && state.Used == 0
		return state
	}
	err = repair(ctx, conn, want.Mounts)
	if err == nil {
		err = pin(ctx, conn, want.Mounts, want.Pinned)
	}
	if err != nil {
		state.MountErr = err.Error()
		return state
	}
	state.Mounted = true
	return state
}

// leading are the masters that say that they lead, sorted.
func leading(roles map[string]rpc.Role) []string {
	var leaders []string
	for address, role := range roles {
		if role == rpc.Leading {
			leaders = append(leaders, address)
		}
	}
	slices.Sort(leaders)
	return leaders
}

// silentAfter is how many seconds a worker may say nothing before it counts as gone; it speaks each second. The masters
// themselves keep it for five minutes, and with it what a pod held that was replaced since, under another address.
const silentAfter = 15

// numbers reads the workers and what they hold; each counts reserved as used beside that.
func numbers(ctx context.Context, conn *rpc.Cluster, reserved int64, state *State) error {
	infos, err := conn.WorkerInfos(ctx)
	if err != nil {
		return err
	}
	count(infos, reserved, state)
	return nil
}

// count adds up the workers that speak.
func count(infos []*wire.WorkerInfo, reserved int64, state *State) {
	for _, info := range infos {
		if info.GetLastContactSec() > silentAfter {
			continue
		}
		host := info.GetAddress().GetContainerHost()
		if host == "" {
			host = info.GetAddress().GetHost()
		}
		w := Worker{
			Address:  net.JoinHostPort(host, strconv.Itoa(int(info.GetAddress().GetRpcPort()))),
			Capacity: info.GetCapacityBytes(), Used: max(info.GetUsedBytes()-reserved, 0),
		}
		state.Workers = append(state.Workers, w)
		state.Capacity += w.Capacity
		state.Used += w.Used
	}
	slices.SortFunc(state.Workers, func(a, b Worker) int { return strings.Compare(a.Address, b.Address) })
}

// leaderName is the host and port in what a master calls the leader, which is how Java shows an address:
// "host/10.0.0.1:19998", and with "<unresolved>" in the middle where the master has not looked the host up.
func leaderName(address string) string {
	host, rest, slash := strings.Cut(address, "/")
	_, port, err := net.SplitHostPort(rest)
	if !slash || host == "" || err != nil {
		return address
	}
	return net.JoinHostPort(host, port)
}
