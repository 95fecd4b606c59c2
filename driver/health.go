package driver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/encoding/protowire"

	"millrace.io/millrace/fuse/handover"
)

// awayTime is how long an agent may be away, as it is while it restarts, before its volumes are abnormal.
const awayTime = 2 * time.Second

// reasons of an adverse condition, for machines.
const (
	reasonAway      = "AgentNotRunning"
	reasonUnserved  = "NotServed"
	reasonUnmounted = "NotMounted"
	reasonSession   = "SessionAbnormal"
	reasonLost      = "MountLost"
)

// condition is how a volume is.
type condition struct {
	// reason is "" where all is well.
	reason  string
	message string
}

// usage remembers what the agent said last of each volume, for the time when there is none.
type usage struct {
	// mu guards last.
	mu sync.Mutex
	// last is by volume id.
	last map[string]handover.Stats
}

func newUsage() *usage { return &usage{last: make(map[string]handover.Stats)} }

func (u *usage) put(id string, s handover.Stats) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last[id] = s
}

func (u *usage) get(id string) handover.Stats {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last[id]
}

func (u *usage) drop(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.last, id)
}

// observe asks the agent how a volume is. An agent that restarts is waited for, as long as it may be away.
func (d *Driver) observe(ctx context.Context, id string) (handover.Stats, condition) {
	ctx, cancel := context.WithTimeout(ctx, awayTime)
	defer cancel()
	for {
		stats, err := d.agent.Stats(ctx, id)
		if err == nil {
			d.usage.put(id, stats)
			c := condition{message: strings.ToValidUTF8(stats.Message, "?")}
			if stats.Abnormal {
				c.reason = reasonSession
			}
			return stats, c
		}
		select {
		case <-time.After(redial):
			continue
		case <-ctx.Done():
		}
		return d.usage.get(id), d.unserved(err)
	}
}

// unserved is the condition of a volume about which the agent could not be asked, or of which it knows nothing.
func (d *Driver) unserved(err error) condition {
	if handover.CodeOf(err) == handover.CodeNotFound {
		return condition{reason: reasonUnserved, message: "the agent does not serve the volume"}
	}
	if up, since := d.custody.present(); !up {
		return condition{reason: reasonAway, message: fmt.Sprintf("the agent has not been running for %s",
			time.Since(since).Round(time.Second))}
	}
	return condition{reason: reasonAway, message: "the agent does not answer"}
}

// statsResponse is the answer of NodeGetVolumeStats. All of a cache is available whatever is in it, since what is
// there makes room for what comes: a cache that is full is no volume that fills up.
// D-238 says why.
func statsResponse(s handover.Stats, c condition) *csi.NodeGetVolumeStatsResponse {
	resp := &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: max(s.Capacity, 0), Used: max(s.Used, 0), Available: max(s.Capacity, 0)},
	}}
	// Nothing is told of inodes: there is no bound to how many a volume has, and a total without free ones is what
	// alerts on volumes that fill up look for.
	resp.ProtoReflect().SetUnknown(volumeCondition(c))
	return resp
}

// capabilityVolumeCondition is the number of VOLUME_CONDITION in CSI 1.3 to 1.12. Version 1.13 removed the name for
// GET_VOLUME_HEALTH, and reserves the number: orchestrators of before look for it still.
const capabilityVolumeCondition csi.NodeServiceCapability_RPC_Type = 4

// The numbers of NodeGetVolumeStatsResponse.volume_condition and its fields, of which the same is true.
const (
	fieldVolumeCondition = 2
	fieldAbnormal        = 1
	fieldMessage         = 2
)

// volumeCondition is the field volume_condition of CSI 1.12 on the wire.
func volumeCondition(c condition) []byte {
	var inner []byte
	if c.reason != "" {
		inner = protowire.AppendTag(inner, fieldAbnormal, protowire.VarintType)
		inner = protowire.AppendVarint(inner, 1)
	}
	inner = protowire.AppendTag(inner, fieldMessage, protowire.BytesType)
	inner = protowire.AppendString(inner, c.message)
	return protowire.AppendBytes(protowire.AppendTag(nil, fieldVolumeCondition, protowire.BytesType), inner)
}

// healthOf is the answer of NodeGetVolumeHealth, from the conditions of the volume's mounts.
func healthOf(id string, conditions []condition) *csi.VolumeHealth {
	health := &csi.VolumeHealth{VolumeId: id}
	for i, c := range conditions {
		if c.reason != "" && !slices.Contains(conditions[:i], c) {
			health.HealthStatuses = append(health.HealthStatuses, &csi.VolumeHealth_VolumeHealthEntry{
				Status: healthStatus(c), Reason: c.reason, Message: c.message,
			})
		}
	}
	return health
}

// healthStatus is the kind of a condition: a session that does not do what it should still answers.
func healthStatus(c condition) csi.VolumeHealthErrorType {
	if c.reason == reasonSession {
		return csi.VolumeHealthErrorType_DEGRADED
	}
	return csi.VolumeHealthErrorType_INACCESSIBLE
}
