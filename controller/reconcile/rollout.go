package reconcile

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/controller/objects"
)

func ready(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && conditionOf(pod, corev1.PodReady) == corev1.ConditionTrue
}

// roll deletes the next pod whose spec is old, when all others serve; the StatefulSet makes it anew. Standby masters go
// first, then workers, and the leading master last, so that a rollout moves the leader once. D-075 says why.
func (r *Reconciler) roll(ctx context.Context, w *world, leader string) (string, error) {
	if w.masters == nil || w.workers == nil {
		return "", nil
	}
	revisions := map[string]string{}
	for role, set := range map[string]setStatus{
		objects.RoleMaster: {
			w.masters.Generation,
			w.masters.Status.ObservedGeneration, w.masters.Status.UpdateRevision,
		},
		objects.RoleWorker: {
			w.workers.Generation, w.workers.Status.ObservedGeneration,
			w.workers.Status.UpdateRevision,
		},
	} {
		if set.generation != set.observed {
			// What the new spec's revision is, is not known yet.
			return "", nil
		}
		revisions[role] = set.revision
	}
	next := nextToRoll(w, revisions, leader)
	if next == nil {
		return "", nil
	}
	err := r.Client.Delete(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: next.Name, Namespace: next.Namespace}},
		client.Preconditions{UID: &next.UID})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return next.Name, nil
	}
	return next.Name, err
}

type setStatus struct {
	generation, observed int64
	revision             string
}

// nextToRoll is the pod to replace now, nil if there is none or one is on its way.
func nextToRoll(w *world, revisions map[string]string, leader string) *corev1.Pod {
	var old []*corev1.Pod
	whole := len(w.pods) == int(replicasOf(w.masters.Spec.Replicas)+replicasOf(w.workers.Spec.Replicas))
	for i := range w.pods {
		pod := &w.pods[i]
		if pod.DeletionTimestamp != nil {
			return nil
		}
		isOld := revisions[pod.Labels[roleLabel]] != pod.Labels["controller-revision-hash"]
		if isOld {
			old = append(old, pod)
		}
		if !ready(pod) {
			if isOld {
				// It serves no client; its new spec may be what mends it.
				return pod
			}
			whole = false
		}
	}
	if !whole || len(old) == 0 {
		return nil
	}
	return slices.MinFunc(old, func(a, b *corev1.Pod) int { return rank(a, leader) - rank(b, leader) })
}

// leadingPod is the name of the pod of the leading master, "" where none is known to lead. addresses are the masters',
// by their ordinals.
func leadingPod(w *world, addresses []string) string {
	for i := range w.pods {
		pod := &w.pods[i]
		if n := ordinal(pod.Name); pod.Labels[roleLabel] == objects.RoleMaster && n >= 0 && n < len(addresses) &&
			w.clusters.Roles[addresses[n]] == rpc.Leading {
			return pod.Name
		}
	}
	return ""
}

// rank orders pods for a rollout: standby masters, workers, the leading master, of which nothing is known where none
// leads.
func rank(pod *corev1.Pod, leader string) int {
	switch {
	case pod.Labels[roleLabel] == objects.RoleWorker:
		return 1
	case leader == "" || pod.Name == leader:
		return 2
	}
	return 0
}

func replicasOf(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}
