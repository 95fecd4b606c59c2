package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/masters"
	"millrace.io/millrace/controller/objects"
)

// world is what there is of one Dataset. What is not there is nil. The specs are copies.
type world struct {
	key      types.NamespacedName
	dataset  *v1alpha1.Dataset
	runtime  *v1alpha1.AlluxioRuntime
	masters  *appsv1.StatefulSet
	workers  *appsv1.StatefulSet
	volume   *corev1.PersistentVolume
	claim    *corev1.PersistentVolumeClaim
	pods     []corev1.Pod
	users    []corev1.Pod
	ended    []corev1.Pod // pods that use the claim no more, and keep it all the same
	loads    []string
	clusters masters.State
}

// running counts the Alluxio pods that have an address.
func (w *world) running() int {
	n := 0
	for i := range w.pods {
		if w.pods[i].Status.PodIP != "" {
			n++
		}
	}
	return n
}

// masterHosts are the addresses of the masters' pods by their ordinals, "" where one has none.
func (w *world) masterHosts(count int) []string {
	hosts := make([]string, count)
	for i := range w.pods {
		pod := &w.pods[i]
		if n := ordinal(pod.Name); pod.Labels[roleLabel] == objects.RoleMaster && n >= 0 && n < count &&
			pod.DeletionTimestamp == nil {
			hosts[n] = pod.Status.PodIP
		}
	}
	return hosts
}

// seen differs when a pod has come, gone, got an address, or one of its containers has begun or ended.
func (w *world) seen() string {
	var text strings.Builder
	for i := range w.pods {
		pod := &w.pods[i]
		fmt.Fprintf(&text, "%s %s %v", pod.UID, pod.Status.PodIP, pod.DeletionTimestamp != nil)
		for j := range pod.Status.ContainerStatuses {
			fmt.Fprintf(&text, " %v", pod.Status.ContainerStatuses[j].State.Running != nil)
		}
		text.WriteString("\n")
	}
	return text.String()
}

// observe reads all of it from the caches.
func (r *Reconciler) observe(ctx context.Context, key types.NamespacedName) (*world, error) {
	w := &world{key: key, clusters: r.Clusters.State(key)}
	var err error
	get := func(o client.Object, name types.NamespacedName) bool {
		if err != nil {
			return false
		}
		e := r.Client.Get(ctx, name, o)
		if e != nil && !apierrors.IsNotFound(e) {
			err = e
		}
		return e == nil
	}
	in := func(name string) types.NamespacedName {
		return types.NamespacedName{Namespace: key.Namespace, Name: name}
	}
	if d := new(v1alpha1.Dataset); get(d, key) {
		w.dataset = d
	}
	if o := new(v1alpha1.AlluxioRuntime); get(o, key) {
		w.runtime = o
	}
	if o := new(appsv1.StatefulSet); get(o, in(objects.MasterSetName(key.Name))) {
		w.masters = o
	}
	if o := new(appsv1.StatefulSet); get(o, in(objects.WorkerSetName(key.Name))) {
		w.workers = o
	}
	if o := new(corev1.PersistentVolumeClaim); get(o, key) && ownedBy(o, key) {
		w.claim = o
	}
	volume := types.NamespacedName{Name: w.volumeName(r.Settings)}
	if o := new(corev1.PersistentVolume); get(o, volume) && ownedBy(o, key) {
		w.volume = o
	}
	if err != nil {
		return nil, err
	}
	if w.pods, err = r.list(ctx, key.Namespace, client.MatchingFields{indexDataset: key.Name}); err != nil {
		return nil, err
	}
	if w.users, err = r.list(ctx, key.Namespace, client.MatchingFields{indexClaim: key.Name}); err != nil {
		return nil, err
	}
	if w.loads, err = r.loading(ctx, key); err != nil {
		return nil, err
	}
	w.users, w.ended = partition(w.users)
	return w, nil
}

// volumeName is the name of the Dataset's volume: what the claim says, where there is one.
func (w *world) volumeName(settings objects.Settings) string {
	if w.claim != nil && w.claim.Spec.VolumeName != "" {
		return w.claim.Spec.VolumeName
	}
	return objects.VolumeName(w.key.Namespace, w.key.Name, settings.QualifiedVolumes)
}

// partition tells the pods that use a claim from those that have ended.
func partition(pods []corev1.Pod) (users, ended []corev1.Pod) {
	for i := range pods {
		if phase := pods[i].Status.Phase; phase == corev1.PodSucceeded || phase == corev1.PodFailed {
			ended = append(ended, pods[i])
		} else {
			users = append(users, pods[i])
		}
	}
	return users, ended
}

func (r *Reconciler) list(ctx context.Context, namespace string, by client.MatchingFields) ([]corev1.Pod, error) {
	var pods corev1.PodList
	if err := r.Client.List(ctx, &pods, client.InNamespace(namespace), by); err != nil {
		return nil, err
	}
	slices.SortFunc(pods.Items, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods.Items, nil
}

// loading are the names of the Dataset's loads under way, in their order.
func (r *Reconciler) loading(ctx context.Context, key types.NamespacedName) ([]string, error) {
	var loads v1alpha1.DataLoadList
	if err := r.Client.List(ctx, &loads, client.InNamespace(key.Namespace)); err != nil {
		return nil, err
	}
	var names []string
	for i := range loads.Items {
		if l := &loads.Items[i]; l.Spec.Dataset.Name == key.Name && l.Status.Phase == v1alpha1.LoadExecuting {
			names = append(names, l.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// ownedBy reports whether we made the object for the Dataset.
func ownedBy(o client.Object, key types.NamespacedName) bool {
	labels := o.GetLabels()
	return labels[objects.ManagedByLabel] == objects.ManagedBy && labels[objects.DatasetLabel] == key.Name &&
		labels[objects.NamespaceLabel] == key.Namespace
}
