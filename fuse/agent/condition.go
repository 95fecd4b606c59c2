package agent

import (
	"fmt"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/fuse"
)

// ConditionOf is the condition of a mount whose session and cache say this of themselves.
func ConditionOf(session fuse.Stats, capacity cacheclient.Capacity, counters cacheclient.Counters) Condition {
	if session.Stalled > 0 {
		oldest := time.Duration(session.Oldest * float64(time.Millisecond)).Round(100 * time.Millisecond)
		return Condition{
			true,
			fmt.Sprintf("%d requests have been waiting for more than %v, the oldest, %s, for %v: the source does not "+
				"answer",
				session.Stalled, fuse.StallTime, session.OldestOp, oldest),
		}
	}
	if counters.SourceDown {
		return Condition{true, fmt.Sprintf("the source has not answered since %s: what is cached is served",
			counters.SourceDownSince.UTC().Format(time.RFC3339))}
	}
	if counters.SourceRefuses {
		return Condition{true, "the source refuses the keys that the volume has: what is cached is served"}
	}
	for _, l := range capacity.Levels {
		if l.Problem != "" {
			return Condition{true, fmt.Sprintf("the tier %s takes no data: %s", l.Where, l.Problem)}
		}
	}
	return Condition{false, "the mount answers"}
}
