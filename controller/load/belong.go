package load

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	ctrlreconcile "sigs.k8s.io/controller-runtime/pkg/reconcile"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// dataset is the Dataset that a load names, nil where there is none.
func (r *Reconciler) dataset(ctx context.Context, l *v1alpha1.DataLoad) (*v1alpha1.Dataset, error) {
	d := &v1alpha1.Dataset{}
	err := r.Client.Get(ctx, types.NamespacedName{Namespace: l.Namespace, Name: l.Spec.Dataset.Name}, d)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return d, err
}

// leaving reports whether there is no Dataset, or none any more soon.
func leaving(d *v1alpha1.Dataset) bool { return d == nil || d.DeletionTimestamp != nil }

// owner is the UID of the Dataset that a load belongs to, "" where it belongs to none yet.
func owner(l *v1alpha1.DataLoad) types.UID {
	for _, o := range l.OwnerReferences {
		if o.Kind == v1alpha1.DatasetKind && o.APIVersion == v1alpha1.GroupVersion.String() {
			return o.UID
		}
	}
	return ""
}

// belongsToAnother reports whether a load is that of another Dataset of the name. It goes with that one.
func belongsToAnother(l *v1alpha1.DataLoad, d *v1alpha1.Dataset) bool {
	of := owner(l)
	return of != "" && of != d.UID
}

// belong has a load be deleted with its Dataset, by Kubernetes.
func (r *Reconciler) belong(ctx context.Context, l *v1alpha1.DataLoad, d *v1alpha1.Dataset) error {
	if leaving(d) || owner(l) != "" || check(l) != "" {
		return nil
	}
	before := l.DeepCopy()
	l.OwnerReferences = append(l.OwnerReferences, metav1.OwnerReference{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.DatasetKind, Name: d.Name, UID: d.UID,
	})
	return r.Client.Patch(ctx, l, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}

// turns are the changes of a Dataset that loads look at: that it is there, serves, is being deleted, is gone.
var turns = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	before, ok1 := e.ObjectOld.(*v1alpha1.Dataset)
	after, ok2 := e.ObjectNew.(*v1alpha1.Dataset)
	return ok1 && ok2 && (before.Status.Phase != after.Status.Phase || leaving(before) != leaving(after))
}}

// ofDataset are the loads of a Dataset.
func (r *Reconciler) ofDataset(ctx context.Context, d client.Object) []ctrlreconcile.Request {
	loads := &v1alpha1.DataLoadList{}
	if err := r.Client.List(ctx, loads, client.InNamespace(d.GetNamespace())); err != nil {
		r.Log.Warn("the loads of a Dataset cannot be listed", "dataset", d.GetName(), "error", err)
		return nil
	}
	var requests []ctrlreconcile.Request
	for i := range loads.Items {
		if l := &loads.Items[i]; l.Spec.Dataset.Name == d.GetName() {
			requests = append(requests, ctrlreconcile.Request{NamespacedName: client.ObjectKeyFromObject(l)})
		}
	}
	return requests
}

// phaseEvents are the reasons of events that say how far a load is; the names are Fluid's where it has one.
var phaseEvents = map[v1alpha1.LoadPhase]string{
	v1alpha1.LoadPending: "DataLoadPending", v1alpha1.LoadExecuting: "DataLoadJobStarted",
	v1alpha1.LoadComplete: "DataLoadJobComplete", v1alpha1.LoadFailed: "DataLoadJobFailed",
}

// tell writes an event for a phase that a load has come to.
func (r *Reconciler) tell(l *v1alpha1.DataLoad) {
	level := corev1.EventTypeNormal
	if l.Status.Phase == v1alpha1.LoadFailed {
		level = corev1.EventTypeWarning
	}
	r.Events.Eventf(l, nil, level, phaseEvents[l.Status.Phase], "Load", "%s", message(l))
}
