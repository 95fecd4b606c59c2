package reconcile

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"millrace.io/millrace/controller/objects"
)

// emptying remembers since when caches are being emptied. A controller that starts anew begins anew.
type emptying struct {
	// mu guards since.
	mu    sync.Mutex
	since map[types.NamespacedName]time.Time
}

// begin is when the emptying of a cache began: now, if it has not.
func (e *emptying) begin(key types.NamespacedName, now time.Time) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.since == nil {
		e.since = make(map[types.NamespacedName]time.Time)
	}
	if _, ok := e.since[key]; !ok {
		e.since[key] = now
	}
	return e.since[key]
}

func (e *emptying) end(key types.NamespacedName) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.since, key)
}

// answers reports whether a pod of a role may be there to be asked. Where addresses are given, pods are not looked at.
func (r *Reconciler) answers(w *world, role string) bool {
	return r.Addresses != nil || slices.ContainsFunc(w.pods, func(p corev1.Pod) bool {
		return p.Labels[roleLabel] == role && p.DeletionTimestamp == nil && p.Status.PodIP != ""
	})
}

// empty has the workers drop their blocks before they end, for those in a directory of the node would stay there and
// take its memory. It waits as long as the clean policy says, and not at all where no worker could be asked. D-083 says
// why.
func (r *Reconciler) empty(ctx context.Context, w *world) (*waiting, error) {
	state := w.clusters
	if w.workers == nil || w.workers.DeletionTimestamp != nil || w.runtime == nil || w.dataset == nil ||
		state.Leader == "" || len(state.Workers) == 0 || state.Emptied {
		return nil, nil
	}
	if !r.answers(w, objects.RoleWorker) || !r.answers(w, objects.RoleMaster) {
		// Their namespace is being deleted, or they were.
		return nil, nil
	}
	plan, _, err := r.plan(ctx, w, nil)
	if err != nil || plan == nil || plan.Clean.Attempts == 0 {
		return nil, err
	}
	bound := time.Duration(plan.Clean.Attempts) * plan.Clean.Patience
	if time.Since(r.emptying.begin(w.key, time.Now())) > bound {
		r.Events.Eventf(w.runtime, nil, corev1.EventTypeWarning, "NotEmptied", "Delete",
			"the cache was not emptied within %v, and %s may be left in the tiers on nodes; %s", bound,
			size(state.Used), state.EmptyErr)
		return nil, nil
	}
	want := r.want(w, plan)
	want.Empty = true
	r.Clusters.Want(w.key, want)
	message := "waits for the workers to drop " + size(state.Used)
	if state.EmptyErr != "" {
		message += "; " + state.EmptyErr
	}
	return &waiting{"Emptying", message}, nil
}
