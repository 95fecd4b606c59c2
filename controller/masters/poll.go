package masters

import (
	"context"
	"math/rand/v2"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

// roundPatience bounds one round.
const roundPatience = 20 * time.Second

// follow asks in rounds until the context ends.
func (c *Clusters) follow(ctx context.Context, cl *cluster) {
	var walking chan struct{}
	defer func() {
		if walking != nil {
			<-walking
		}
	}()
	pause := c.Fast
	for {
		timer := time.NewTimer(pause - rand.N(pause/4))
		select {
		case <-cl.kick:
			timer.Stop()
			pause = c.Fast
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
		changed, walk := c.round(ctx, cl)
		<-c.places
		if changed {
			pause = c.Fast
			c.Notify(cl.key)
		} else {
			pause = min(pause*2, c.Slow)
		}
		if walk {
			walking = make(chan struct{})
			go func(done chan struct{}) {
				defer close(done)
				c.walk(ctx, cl)
			}(walking)
		}
	}
}

// round asks once, and tells whether the state has changed and whether the sizes should be found out.
func (c *Clusters) round(ctx context.Context, cl *cluster) (changed, walk bool) {
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
	state.Sized, state.Total, state.Files = cl.state.Sized, cl.state.Total, cl.state.Files
	if state.Err != "" {
		// What was known stays known while nobody answers.
		state.Capacity, state.Used, state.Mounted = before.Capacity, before.Used, before.Mounted
	}
	changed = !reflect.DeepEqual(cl.state, state)
	cl.state = state
	walk = want.Sizes && state.Mounted && state.Err == "" && !cl.walking && time.Since(cl.walked) > walkEvery
	cl.walking = cl.walking || walk
	return changed, walk
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
	if !leads(state.Roles) {
		state.Err = "no master of " + strings.Join(want.Masters, ", ") + " says that it leads"
		return state
	}
	info, err := conn.MasterInfo(ctx)
	if err == nil {
		state.Leader = info.Leader
		err = c.numbers(ctx, conn, &state)
	}
	if err != nil {
		state.Err = err.Error()
		return state
	}
	if err := repair(ctx, conn, want.Mounts); err != nil {
		state.MountErr = err.Error()
		return state
	}
	state.Mounted = true
	return state
}

func leads(roles map[string]rpc.Role) bool {
	for _, r := range roles {
		if r == rpc.Leading {
			return true
		}
	}
	return false
}

// numbers reads the workers and what they hold.
func (c *Clusters) numbers(ctx context.Context, conn *rpc.Cluster, state *State) error {
	infos, err := conn.WorkerInfos(ctx)
	if err != nil {
		return err
	}
	for _, info := range infos {
		host := info.GetAddress().GetContainerHost()
		if host == "" {
			host = info.GetAddress().GetHost()
		}
		w := Worker{
			Address:  net.JoinHostPort(host, strconv.Itoa(int(info.GetAddress().GetRpcPort()))),
			Capacity: info.GetCapacityBytes(), Used: info.GetUsedBytes(),
		}
		state.Workers = append(state.Workers, w)
		state.Capacity += w.Capacity
		state.Used += w.Used
	}
	slices.SortFunc(state.Workers, func(a, b Worker) int { return strings.Compare(a.Address, b.Address) })
	return nil
}
