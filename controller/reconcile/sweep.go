package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller/objects"
)

// sweepPatience is how long a sweeper is waited for: a node that is gone for good holds no deletion up. The sweeper
// stays, and does its work when its node is back.
// D-084 says why.
const sweepPatience = 30 * time.Second

// tierNodes are the nodes that have or had workers, without those that are swept.
func tierNodes(w *world, swept []string) []string {
	nodes := slices.Clone(w.runtime.Status.TierNodes)
	nodes = slices.DeleteFunc(nodes, func(n string) bool { return slices.Contains(swept, n) })
	for node := range workerNodes(w) {
		if !slices.Contains(nodes, node) {
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// workerNodes are the nodes that have workers now.
func workerNodes(w *world) map[string]bool {
	nodes := map[string]bool{}
	for i := range w.pods {
		if pod := &w.pods[i]; pod.Labels[roleLabel] == objects.RoleWorker && pod.Spec.NodeName != "" {
			nodes[pod.Spec.NodeName] = true
		}
	}
	return nodes
}

// placed reports whether all workers that there are to be have a node, so that none may be on its way to one that has
// none now.
func placed(w *world) bool {
	n := 0
	for i := range w.pods {
		if pod := &w.pods[i]; pod.Labels[roleLabel] == objects.RoleWorker && pod.Spec.NodeName != "" &&
			pod.DeletionTimestamp == nil {
			n++
		}
	}
	return w.workers != nil && n == int(replicasOf(w.workers.Spec.Replicas)) &&
		w.workers.Generation == w.workers.Status.ObservedGeneration
}

// sweep removes the tiers from nodes that have no workers any more. It returns the nodes that are swept, or whose
// sweeper is not waited for any more, and what it waits for. A sweeper that has ended stays until the status does not
// name its node any more, so that no node is swept twice; one that has not ended stays until it has.
func (r *Reconciler) sweep(ctx context.Context, w *world) (swept []string, wait *waiting, err error) {
	if w.runtime == nil {
		return nil, nil, nil
	}
	have := workerNodes(w)
	var left []string
	for _, node := range w.runtime.Status.TierNodes {
		if have[node] {
			continue
		}
		left = append(left, node)
		done, err := r.sweepNode(ctx, w, node)
		if err != nil {
			return swept, nil, fmt.Errorf("the tiers on the node %s: %w", node, err)
		}
		if done {
			swept = append(swept, node)
		}
	}
	if len(left) > 0 {
		wait = &waiting{"Sweeping", "waits for the tiers to be removed from the nodes " + strings.Join(left, ", ")}
	}
	return swept, wait, r.removeSweepers(ctx, w.key, left)
}

// sweepers reads what is in the controller's namespace, which the caches of one that serves a single other namespace do
// not have.
func (r *Reconciler) sweepers() client.Reader {
	if r.Namespace != "" && r.Namespace != r.Settings.Namespace {
		return r.Live
	}
	return r.Client
}

// removeSweepers deletes those that have ended, of nodes that are not being swept.
func (r *Reconciler) removeSweepers(ctx context.Context, key types.NamespacedName, sweeping []string) error {
	pods := &corev1.PodList{}
	ours := client.MatchingLabels(objects.SweeperLabels(key.Namespace, key.Name))
	if err := r.sweepers().List(ctx, pods, client.InNamespace(r.Settings.Namespace), ours); err != nil {
		return err
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Status.Phase != corev1.PodSucceeded || pod.DeletionTimestamp != nil ||
			slices.Contains(sweeping, pod.Spec.NodeName) {
			continue
		}
		if err := client.IgnoreNotFound(r.Client.Delete(ctx, pod, client.GracePeriodSeconds(0))); err != nil {
			return err
		}
	}
	return nil
}

// sweepNode does the next step on one node, and reports whether no more are to come.
func (r *Reconciler) sweepNode(ctx context.Context, w *world, node string) (bool, error) {
	pod := &corev1.Pod{}
	name := types.NamespacedName{
		Namespace: r.Settings.Namespace,
		Name:      objects.SweeperName(w.key.Namespace, w.key.Name, node),
	}
	err := r.sweepers().Get(ctx, name, pod)
	if apierrors.IsNotFound(err) {
		wanted := objects.Sweeper(objects.Input{Runtime: w.runtime, Settings: r.Settings}, node)
		if wanted == nil {
			return true, nil
		}
		err = r.Client.Create(ctx, wanted, client.FieldOwner(FieldOwner))
		if apierrors.IsAlreadyExists(err) {
			err = nil
		}
		return false, err
	}
	if err != nil || !ownedBy(pod, w.key) {
		return err == nil, err
	}
	if pod.Status.Phase == corev1.PodSucceeded {
		return true, nil
	}
	if time.Since(pod.CreationTimestamp.Time) < sweepPatience {
		return false, nil
	}
	r.Events.Eventf(w.runtime, nil, corev1.EventTypeWarning, "NotSwept", "Sweep",
		"the tiers on the node %s could not be removed within %v; the pod %s does so when the node runs it", node,
		sweepPatience, pod.Name)
	return true, nil
}
