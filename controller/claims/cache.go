package claims

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"millrace.io/millrace/controller/objects"
)

// The annotations of claims and volumes by which the parts of Kubernetes that provision agree.
const (
	provisionerAnnotation  = "volume.kubernetes.io/storage-provisioner"
	selectedNodeAnnotation = "volume.kubernetes.io/selected-node"
	provisionedAnnotation  = "pv.kubernetes.io/provisioned-by"
)

// indexClass finds the claims that wait, by their class.
const indexClass = "class"

// Widen has a cache that keeps what is made for Datasets keep also the claims that wait for a volume of the driver, and
// of all other claims that there is one: the API server cannot select by annotations. Of the volumes that are made for
// claims it keeps what is looked at.
func Widen(kept map[client.Object]cache.ByObject, driver string) {
	for o, how := range kept {
		switch o.(type) {
		case *corev1.PersistentVolumeClaim:
			how.Label, how.Transform = nil, slimClaim(driver)
		case *corev1.PersistentVolume:
			how.Transform = slimVolume
		}
		kept[o] = how
	}
}

// identity is what the cache needs of any object.
func identity(o client.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(),
		ResourceVersion: o.GetResourceVersion(),
	}
}

func slimClaim(driver string) toolscache.TransformFunc {
	return func(in any) (any, error) {
		claim, ok := in.(*corev1.PersistentVolumeClaim)
		if !ok {
			return in, nil
		}
		if claim.Labels[objects.ManagedByLabel] == objects.ManagedBy || waits(claim, driver) {
			claim.ManagedFields = nil
			return claim, nil
		}
		return &corev1.PersistentVolumeClaim{ObjectMeta: identity(claim)}, nil
	}
}

func slimVolume(in any) (any, error) {
	volume, ok := in.(*corev1.PersistentVolume)
	if !ok {
		return in, nil
	}
	if volume.Labels[objects.DatasetLabel] != "" {
		volume.ManagedFields = nil
		return volume, nil
	}
	slim := &corev1.PersistentVolume{ObjectMeta: identity(volume)}
	slim.Labels, slim.DeletionTimestamp = volume.Labels, volume.DeletionTimestamp
	if by, ok := volume.Annotations[provisionedAnnotation]; ok {
		slim.Annotations = map[string]string{provisionedAnnotation: by}
	}
	slim.Spec.PersistentVolumeReclaimPolicy, slim.Spec.ClaimRef = volume.Spec.PersistentVolumeReclaimPolicy,
		volume.Spec.ClaimRef
	slim.Status.Phase = volume.Status.Phase
	return slim, nil
}

// waits reports whether the binder has left the claim to the driver, and it has no volume yet.
func waits(claim *corev1.PersistentVolumeClaim, driver string) bool {
	return claim.Annotations[provisionerAnnotation] == driver && claim.Spec.VolumeName == "" &&
		claim.DeletionTimestamp == nil
}

// placed reports whether a claim that waits for its pod has one. The scheduler may take the node back.
func placed(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) bool {
	mode := class.VolumeBindingMode
	return mode == nil || *mode != storagev1.VolumeBindingWaitForFirstConsumer ||
		claim.Annotations[selectedNodeAnnotation] != ""
}

// classOf is the name of a claim's class. The annotation is the older way to give it, which the binder prefers.
func classOf(claim *corev1.PersistentVolumeClaim) string {
	if name, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	if claim.Spec.StorageClassName == nil {
		return ""
	}
	return *claim.Spec.StorageClassName
}

// classes is the class of a claim that waits for us, and none of any other.
func (r *Reconciler) classes(o client.Object) []string {
	claim, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok || !waits(claim, r.Driver) {
		return nil
	}
	return []string{classOf(claim)}
}

// provisions reports whether a class is ours.
func (r *Reconciler) provisions(o client.Object) bool {
	class, ok := o.(*storagev1.StorageClass)
	return ok && class.Provisioner == r.Driver
}

// waiting are the claims that wait for a class.
func (r *Reconciler) waiting(ctx context.Context, class client.Object) []reconcile.Request {
	var all corev1.PersistentVolumeClaimList
	if err := r.Client.List(ctx, &all, client.MatchingFields{indexClass: class.GetName()}); err != nil {
		r.Log.Error("the claims of a class cannot be listed", "class", class.GetName(), "error", err)
		return nil
	}
	requests := make([]reconcile.Request, len(all.Items))
	for i := range all.Items {
		requests[i].NamespacedName = types.NamespacedName{Namespace: all.Items[i].Namespace, Name: all.Items[i].Name}
	}
	return requests
}

// unneeded reports whether a volume is one that we made, that its claim has left, and that is to go then.
func (r *Reconciler) unneeded(o client.Object) bool {
	volume, ok := o.(*corev1.PersistentVolume)
	return ok && volume.Annotations[provisionedAnnotation] == r.Driver && volume.DeletionTimestamp == nil &&
		volume.Status.Phase == corev1.VolumeReleased &&
		volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete &&
		volume.Spec.ClaimRef != nil && (r.Namespace == "" || volume.Spec.ClaimRef.Namespace == r.Namespace)
}
