package agent

import (
	"context"
	"time"
)

// watchInterval is how often the watchdog looks at the mounts.
const watchInterval = time.Second

// watch logs when a mount becomes abnormal, and when it is well again, until ctx ends. It asks no mount for anything
// that could wait: the condition is made of what session and cache have in memory.
func (s *Server) watch(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	abnormal := make(map[string]bool)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		present := make(map[string]bool, len(abnormal))
		for _, m := range s.list() {
			now := ConditionOf(m.Stats(), m.Client.Capacity(), m.Client.Counters())
			if now.Abnormal {
				present[m.Dir] = true
			}
			switch was := abnormal[m.Dir]; {
			case now.Abnormal && !was:
				s.log.Warn("a mount is abnormal", "dir", m.Dir, "source", m.Source, "why", now.Message)
			case was && !now.Abnormal:
				s.log.Info("a mount is well again", "dir", m.Dir, "source", m.Source)
			}
		}
		abnormal = present
	}
}
