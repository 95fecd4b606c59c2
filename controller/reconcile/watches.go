package reconcile

import (
	"context"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	ctrlreconcile "sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/objects"
)

// The indexes of pods: by the Dataset whose Alluxio they are, and by the claims that they use.
const (
	indexDataset = "dataset"
	indexClaim   = "claim"
)

// owned are the kinds that are made for a Dataset, without Secrets, which are not watched.
func owned() []client.Object {
	return []client.Object{
		&appsv1.StatefulSet{}, &corev1.Service{}, &corev1.ConfigMap{}, &corev1.PersistentVolume{},
		&corev1.PersistentVolumeClaim{},
		&networkingv1.NetworkPolicy{}, &policyv1.PodDisruptionBudget{},
	}
}

// CacheOptions keep in memory what we made, and of all pods the little that is used.
func CacheOptions() cache.Options {
	ours := labels.SelectorFromSet(labels.Set{objects.ManagedByLabel: objects.ManagedBy})
	by := map[client.Object]cache.ByObject{&corev1.Pod{}: {Transform: slimPod}}
	for _, o := range owned() {
		by[o] = cache.ByObject{Label: ours}
	}
	return cache.Options{ByObject: by, DefaultTransform: cache.TransformStripManagedFields()}
}

// slimPod keeps of a pod what is looked at.
func slimPod(in any) (any, error) {
	pod, ok := in.(*corev1.Pod)
	if !ok {
		return in, nil
	}
	slim := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
			DeletionTimestamp: pod.DeletionTimestamp,
			CreationTimestamp: pod.CreationTimestamp, Finalizers: pod.Finalizers,
			Labels: onlyFluids(pod.Labels), Annotations: onlyFluids(pod.Annotations),
		},
		Spec: corev1.PodSpec{NodeName: pod.Spec.NodeName},
		Status: corev1.PodStatus{
			Phase: pod.Status.Phase, PodIP: pod.Status.PodIP, HostIP: pod.Status.HostIP,
		},
	}
	if pod.Labels[objects.ManagedByLabel] == objects.ManagedBy {
		slim.Labels, slim.Status.Conditions = pod.Labels, pod.Status.Conditions
		if hash, ok := pod.Annotations[objects.SourcesHash]; ok {
			slim.Annotations = map[string]string{objects.SourcesHash: hash}
		}
		slim.Status.Reason, slim.Status.Message = pod.Status.Reason, pod.Status.Message
		slim.Status.InitContainerStatuses,
			slim.Status.ContainerStatuses = slimContainers(pod.Status.InitContainerStatuses),
			slimContainers(pod.Status.ContainerStatuses)
	}
	for i := range pod.Spec.Volumes {
		if claim := pod.Spec.Volumes[i].PersistentVolumeClaim; claim != nil {
			slim.Spec.Volumes = append(slim.Spec.Volumes,
				corev1.Volume{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: claim}})
		}
	}
	return slim, nil
}

// slimContainers keeps the fields of containers that say if they run, and why not.
func slimContainers(all []corev1.ContainerStatus) []corev1.ContainerStatus {
	slim := make([]corev1.ContainerStatus, len(all))
	for i := range all {
		c := &all[i]
		slim[i] = corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, Ready: c.Ready, State: c.State,
			LastTerminationState: c.LastTerminationState,
		}
	}
	return slim
}

// claimsOf are the names of the claims that a pod uses.
func claimsOf(o client.Object) []string {
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return nil
	}
	var names []string
	for i := range pod.Spec.Volumes {
		if claim := pod.Spec.Volumes[i].PersistentVolumeClaim; claim != nil {
			names = append(names, claim.ClaimName)
		}
	}
	return names
}

// datasetOf is the Dataset whose Alluxio a pod is.
func datasetOf(o client.Object) []string {
	if l := o.GetLabels(); l[objects.ManagedByLabel] == objects.ManagedBy && l["release"] != "" {
		return []string{l["release"]}
	}
	return nil
}

// workers is how many Datasets are reconciled at a time.
const workers = 8

// Setup has the manager call the reconciler whenever something changes.
func (r *Reconciler) Setup(ctx context.Context, mgr ctrl.Manager) error {
	for name, f := range map[string]client.IndexerFunc{indexDataset: datasetOf, indexClaim: claimsOf} {
		if err := mgr.GetFieldIndexer().IndexField(ctx, &corev1.Pod{}, name, f); err != nil {
			return err
		}
	}
	news := make(chan event.GenericEvent, 1024)
	notify := func(key types.NamespacedName) {
		select {
		case news <- event.GenericEvent{Object: &v1alpha1.Dataset{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}}:
		case <-ctx.Done():
		}
	}
	r.Clusters.Notify = notify
	if r.Lost != nil {
		r.Lost.Notify = notify
	}
	b := ctrl.NewControllerManagedBy(mgr).Named("dataset").
		For(&v1alpha1.Dataset{}).
		Watches(&v1alpha1.AlluxioRuntime{}, &handler.EnqueueRequestForObject{}).
		Watches(&v1alpha1.DataLoad{}, handler.EnqueueRequestsFromMapFunc(ofLoad), builder.WithPredicates(loadTurns)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(ofPod)).
		WatchesRawSource(source.Channel(news, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: workers,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[ctrlreconcile.Request](200*time.Millisecond, time.Minute),
		})
	for _, o := range owned() {
		b = b.Watches(o, handler.EnqueueRequestsFromMapFunc(ofOwned))
	}
	return b.Complete(r)
}

// ofLoad is the Dataset of a load.
func ofLoad(_ context.Context, o client.Object) []ctrlreconcile.Request {
	l, ok := o.(*v1alpha1.DataLoad)
	if !ok {
		return nil
	}
	return []ctrlreconcile.Request{{NamespacedName: types.NamespacedName{
		Namespace: l.Namespace,
		Name:      l.Spec.Dataset.Name,
	}}}
}

// loadTurns are the changes of a load that a Dataset tells of, without its progress.
var loadTurns = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	before, ok1 := e.ObjectOld.(*v1alpha1.DataLoad)
	after, ok2 := e.ObjectNew.(*v1alpha1.DataLoad)
	return ok1 && ok2 && before.Status.Phase != after.Status.Phase
}}

// ofOwned is the Dataset that an object was made for.
func ofOwned(_ context.Context, o client.Object) []ctrlreconcile.Request {
	l := o.GetLabels()
	if l[objects.DatasetLabel] == "" {
		return nil
	}
	return []ctrlreconcile.Request{{NamespacedName: types.NamespacedName{
		Namespace: l[objects.NamespaceLabel],
		Name:      l[objects.DatasetLabel],
	}}}
}

// ofPod are the Datasets that a pod has to do with.
func ofPod(ctx context.Context, o client.Object) []ctrlreconcile.Request {
	requests := ofOwned(ctx, o)
	for _, name := range append(datasetOf(o), claimsOf(o)...) {
		requests = append(requests,
			ctrlreconcile.Request{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}})
	}
	return requests
}
