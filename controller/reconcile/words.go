package reconcile

import (
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"millrace.io/millrace/controller/objects"
)

// words remembers which pods were told that their labels and annotations do nothing.
type words struct {
	// mu guards byKey.
	mu    sync.Mutex
	byKey map[types.NamespacedName]map[types.UID]bool
}

// newFor is how long a pod counts as new. A controller that takes over says nothing of those that it finds.
const newFor = 10 * time.Minute

// news are the pods of a Dataset's users that have not been told yet, and counts them as told. Those that are gone are
// forgotten.
func (w *words) news(key types.NamespacedName, users []corev1.Pod, now time.Time) []*corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	var fresh []*corev1.Pod
	known := map[types.UID]bool{}
	for i := range users {
		pod := &users[i]
		known[pod.UID] = true
		if !w.byKey[key][pod.UID] && now.Sub(pod.CreationTimestamp.Time) < newFor {
			fresh = append(fresh, pod)
		}
	}
	if w.byKey == nil {
		w.byKey = map[types.NamespacedName]map[types.UID]bool{}
	}
	if w.byKey[key] = known; len(known) == 0 {
		delete(w.byKey, key)
	}
	return fresh
}

// tellUsers writes an event for each pod that uses the claim and asks Fluid for something by its labels or annotations,
// such as a sidecar, which is not done here.
func (r *Reconciler) tellUsers(w *world, now time.Time) {
	for _, pod := range r.words.news(w.key, w.users, now) {
		if pod.Labels[objects.ManagedByLabel] == objects.ManagedBy {
			continue // A worker whose source is the claim.
		}
		if asked := objects.WithoutEffect(pod); len(asked) > 0 {
			r.Events.Eventf(pod, nil, corev1.EventTypeNormal, "WithoutEffect", "Reconcile",
				"these labels and annotations have no effect here: %s", strings.Join(asked, ", "))
		}
	}
}

// onlyFluids are the keys of Fluid's among labels or annotations, without their values.
func onlyFluids(all map[string]string) map[string]string {
	var kept map[string]string
	for key := range all {
		if objects.OfFluid(key) {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[key] = ""
		}
	}
	return kept
}
