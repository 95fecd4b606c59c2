package reconcile

import (
	"fmt"
	"net"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/masters"
	"millrace.io/millrace/controller/objects"
)

// drain is about workers that leave because there are to be fewer. Until it is over there are as many as before.
type drain struct {
	// now is how many workers there are, then how many there are to be.
	now, then int32
	// leaving are the hosts of the workers that leave, sorted.
	leaving []string
	// over says that they may go.
	over bool
	// reason and message tell how far it is, or how it ended.
	reason, message string
}

// keeps is how many workers there have to be meanwhile.
func (d *drain) keeps() int32 {
	if d == nil || d.over {
		return 0
	}
	return d.now
}

// hosts are those of the workers to drain.
func (d *drain) hosts() []string {
	if d == nil || d.over {
		return nil
	}
	return d.leaving
}

// drainOf reports whether workers leave, and how far they are drained. When no drain tells for longer than one may
// take, they go.
func drainOf(w *world, now time.Time) *drain {
	if w.workers == nil || w.workers.DeletionTimestamp != nil {
		return nil
	}
	d := &drain{now: replicasOf(w.workers.Spec.Replicas), then: w.runtime.Spec.Replicas}
	if d.then >= d.now {
		return nil
	}
	for i := range w.pods {
		pod := &w.pods[i]
		if pod.Labels[roleLabel] == objects.RoleWorker && ordinal(pod.Name) >= int(d.then) && pod.Status.PodIP != "" {
			d.leaving = append(d.leaving, pod.Status.PodIP)
		}
	}
	slices.Sort(d.leaving)
	d.judge(w, now)
	return d
}

func (d *drain) judge(w *world, now time.Time) {
	state := w.clusters
	at := state.Drain
	began := find(w.runtime.Status.Conditions, v1alpha1.Draining)
	waited := time.Duration(0)
	if began.Status == corev1.ConditionTrue {
		waited = now.Sub(began.LastTransitionTime.Time)
	}
	who := fmt.Sprintf("%d of %d workers leave", d.now-d.then, d.now)
	switch {
	case d.then == 0:
		d.end("NoWorkers", who+": there is none that could take what they have, which is at the sources still")
	case len(d.leaving) == 0 || !holds(state, d.leaving):
		d.end("Drained", who+"; they had nothing")
	case at.Done && slices.Equal(at.Leaving, d.leaving) && at.Moved == at.Only && at.Why == "":
		d.end("Drained", fmt.Sprintf("%s; %d blocks (%s) that only they had are with others", who, at.Moved,
			size(at.MovedBytes)))
	case at.Done && slices.Equal(at.Leaving, d.leaving):
		d.end("Incomplete", fmt.Sprintf("%s; %d of %d blocks that only they had are with others, the rest is read "+
			"from the sources again: %s", who, at.Moved, at.Only, at.Why))
	case waited > masters.DrainPatience:
		d.end("DeadlineExceeded",
			fmt.Sprintf("%s; %d of %d blocks that only they had are with others after %v; what else they had is read "+
				"from the sources again", who, at.Moved, at.Only, masters.DrainPatience))
	default:
		d.reason, d.message = "ScalingDown", who+"; what only they have is being copied to the others"
	}
}

func (d *drain) end(reason, message string) { d.over, d.reason, d.message = true, reason, message }

// holds reports whether one of the workers has anything, as far as is known.
func holds(state masters.State, hosts []string) bool {
	if !state.Asked || state.Err != "" {
		// It may.
		return true
	}
	return slices.ContainsFunc(state.Workers, func(w masters.Worker) bool {
		host, _, _ := net.SplitHostPort(w.Address)
		return w.Used > 0 && slices.Contains(hosts, host)
	})
}

// draining writes the condition about workers that leave. The last drain stays told.
func (c *conditions) draining(d *drain) {
	if d != nil {
		c.set(v1alpha1.Draining, !d.over, d.reason, d.message)
	}
}
