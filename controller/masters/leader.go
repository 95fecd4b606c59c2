package masters

import (
	"context"
	"time"
)

// watchLeader asks until the context ends whether a master leads, and begins a round where the last one has found
// otherwise. Kubernetes tells of pods that end; a process that is frozen, or a network that drops all packets, makes no
// event, and rounds are a minute apart while all is well.
func (c *Clusters) watchLeader(ctx context.Context, cl *cluster) {
	tick := time.NewTicker(c.Probe)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		cl.mu.Lock()
		want, state := cl.want, cl.state
		cl.mu.Unlock()
		if want.Idle || !state.Asked {
			continue
		}
		select {
		case c.asks <- struct{}{}:
		case <-ctx.Done():
			return
		}
		leads := c.leads(ctx, want)
		<-c.asks
		if led := len(leading(state.Roles)) == 1; led != leads && ctx.Err() == nil {
			cl.soon()
		}
	}
}

// leads reports whether exactly one master says now that it leads.
func (c *Clusters) leads(ctx context.Context, want Want) bool {
	conn, err := connect(want, c.Log)
	if err != nil {
		return false
	}
	defer conn.Release()
	return len(leading(conn.Roles(ctx))) == 1
}
