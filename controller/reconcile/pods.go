package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/controller/masters"
	"millrace.io/millrace/controller/objects"
)

// pods marks those that do their work, and replaces one whose spec is old. It returns the name of a pod that is being
// replaced.
func (r *Reconciler) pods(ctx context.Context, w *world, plan *objects.Plan) (string, error) {
	var errs []error
	addresses := r.want(w, plan).Masters
	for i := range w.pods {
		pod := &w.pods[i]
		gate, serves, known := duty(pod, addresses, w.clusters)
		if !known || conditionOf(pod, gate) == statusOf(serves) {
			continue
		}
		if err := r.mark(ctx, pod, gate, serves); err != nil {
			errs = append(errs, err)
		}
	}
	name, err := r.roll(ctx, w, leadingPod(w, addresses))
	return name, errors.Join(append(errs, err)...)
}

// duty reports whether a pod does what it is there for. Where that cannot be told now, it is not known.
func duty(pod *corev1.Pod, addresses []string, state masters.State) (gate corev1.PodConditionType, serves, known bool) {
	switch pod.Labels[roleLabel] {
	case objects.RoleMaster:
		i := ordinal(pod.Name)
		if i < 0 || i >= len(addresses) || !state.Asked {
			return objects.RaftRole, false, false
		}
		// A standby knows its role when there is a leader to follow. Several leaders are no quorum.
		_, answers := state.Roles[addresses[i]]
		return objects.RaftRole, answers && leaderKnown(state.Roles) && !state.Disagree, state.Err == "" ||
			!answers || state.Disagree
	case objects.RoleWorker:
		if !state.Asked || state.Err != "" {
			return objects.Registered, false, false
		}
		return objects.Registered, registered(pod, state), true
	}
	return "", false, false
}

// registered reports whether the leading master knows the worker of a pod.
func registered(pod *corev1.Pod, state masters.State) bool {
	for _, worker := range state.Workers {
		if host, _, _ := net.SplitHostPort(worker.Address); host != "" && host == pod.Status.PodIP {
			return true
		}
	}
	return false
}

// works reports whether a worker has registered that is there still: the master knows one for a while after its pod is
// gone.
func (w *world) works() bool {
	pods := 0
	for i := range w.pods {
		if pod := &w.pods[i]; pod.Labels[roleLabel] == objects.RoleWorker {
			pods++
			if registered(pod, w.clusters) {
				return true
			}
		}
	}
	return pods == 0 && len(w.clusters.Workers) > 0
}

// roleLabel is the label that tells masters and workers apart.
const roleLabel = "role"

func leaderKnown(roles map[string]rpc.Role) bool {
	for _, role := range roles {
		if role == rpc.Leading {
			return true
		}
	}
	return false
}

// ordinal is the number at the end of a pod's name, -1 if there is none.
func ordinal(pod string) int {
	i, err := strconv.Atoi(pod[strings.LastIndex(pod, "-")+1:])
	if err != nil {
		return -1
	}
	return i
}

func statusOf(is bool) corev1.ConditionStatus {
	if is {
		return corev1.ConditionTrue
	}
	return corev1.ConditionFalse
}

// conditionOf is a pod's condition; one that is not there is false.
func conditionOf(pod *corev1.Pod, kind corev1.PodConditionType) corev1.ConditionStatus {
	for _, c := range pod.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return corev1.ConditionFalse
}

// mark writes a condition of a pod, by which kubelet knows whether it is ready.
func (r *Reconciler) mark(ctx context.Context, pod *corev1.Pod, gate corev1.PodConditionType, serves bool) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID},
		"status": map[string]any{"conditions": []map[string]any{{
			"type": gate, "status": statusOf(serves), "lastTransitionTime": metav1.Now(),
		}}},
	})
	if err != nil {
		return err
	}
	target := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace}}
	err = r.Client.Status().Patch(ctx, target, client.RawPatch(types.StrategicMergePatchType, patch))
	if apierrors.IsConflict(err) {
		// Another pod has the name by now.
		return nil
	}
	if err != nil {
		return fmt.Errorf("pod %s: %w", pod.Name, client.IgnoreNotFound(err))
	}
	return nil
}
