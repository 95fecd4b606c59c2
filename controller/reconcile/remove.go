package reconcile

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"millrace.io/millrace/controller/objects"
)

// waiting says what a deletion waits for.
type waiting struct{ reason, message string }

// lookAgain is when something that may have no event is looked at again.
const lookAgain = 5 * time.Second

// podsNamed is how many pods a sentence names.
const podsNamed = 3

// remove takes down what was made, in order: nothing while pods use the claim, then the claim and its volume, then
// Alluxio. A Dataset takes its runtime with it; a runtime leaves its Dataset, which is not bound any more.
func (r *Reconciler) remove(ctx context.Context, w *world) (ctrl.Result, error) {
	out := outcome{}
	var err error
	out.waits, err = r.takeDown(ctx, w)
	if err == nil && out.waits == nil {
		// No worker is left.
		out.swept, out.waits, err = r.sweep(ctx, w)
	}
	if err == nil && out.waits == nil {
		err = r.removeRest(ctx, w)
	}
	if out.failure = err; err != nil || out.waits != nil {
		result, reportErr := r.report(ctx, w, out)
		if err == nil {
			result.RequeueAfter, err = lookAgain, reportErr
		}
		return result, err
	}
	r.Clusters.Forget(w.key)
	r.emptying.end(w.key)
	if w.runtime != nil {
		if err := r.release(ctx, w.runtime); err != nil {
			return ctrl.Result{}, err
		}
		w.runtime = nil
	}
	if w.dataset == nil {
		return ctrl.Result{}, nil
	}
	if w.dataset.DeletionTimestamp != nil {
		return ctrl.Result{}, r.release(ctx, w.dataset)
	}
	return r.report(ctx, w, outcome{})
}

// release lets an object go.
func (r *Reconciler) release(ctx context.Context, o client.Object) error {
	before, _ := o.DeepCopyObject().(client.Object) // A deep copy has the same type.
	if !controllerutil.RemoveFinalizer(o, Finalizer) {
		return nil
	}
	return client.IgnoreNotFound(r.Client.Patch(ctx, o,
		client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})))
}

// takeDown does the next steps, and says what it waits for; nil when all is gone.
func (r *Reconciler) takeDown(ctx context.Context, w *world) (*waiting, error) {
	if len(w.users) > 0 {
		return inUse(w), nil
	}
	if w.runtime != nil && w.runtime.DeletionTimestamp == nil {
		// The Dataset goes, and the runtime with it.
		if err := client.IgnoreNotFound(r.Client.Delete(ctx, w.runtime)); err != nil {
			return nil, err
		}
		return &waiting{"RuntimeDeletion", "waits for its AlluxioRuntime to be taken down"}, nil
	}
	if w.claim != nil {
		wait, err := r.gone(ctx, w.claim, "PersistentVolumeClaim")
		if wait != nil && len(w.ended) > 0 {
			// Kubernetes lets go of a claim when the last pod that names it is deleted, and not when it has ended.
			wait.message += ": delete the pods that have ended and name it, " + names(w.ended)
		}
		return wait, err
	}
	if w.volume != nil {
		return r.gone(ctx, w.volume, "PersistentVolume")
	}
	if wait, err := r.empty(ctx, w); wait != nil || err != nil {
		return wait, err
	}
	for _, set := range []*appsv1.StatefulSet{w.workers, w.masters} {
		if set == nil || !ownedBy(set, w.key) {
			continue
		}
		if wait, err := r.gone(ctx, set, "StatefulSet"); wait != nil || err != nil {
			return wait, err
		}
	}
	return nil, nil
}

// inUse names the pods that keep the claim.
func inUse(w *world) *waiting {
	return &waiting{"InUse", fmt.Sprintf("the claim %s is used by the pods %s; the deletion goes on when they are gone",
		w.key.Name, names(w.users))}
}

// names are those of some pods, and how many more there are.
func names(pods []corev1.Pod) string {
	some := make([]string, 0, podsNamed)
	for i := range pods[:min(len(pods), podsNamed)] {
		some = append(some, pods[i].Name)
	}
	text := strings.Join(some, ", ")
	if more := len(pods) - podsNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// gone deletes an object and waits for its end.
func (r *Reconciler) gone(ctx context.Context, o client.Object, kind string) (*waiting, error) {
	if o.GetDeletionTimestamp() == nil {
		policy := metav1.DeletePropagationBackground
		if _, ok := o.(*appsv1.StatefulSet); ok {
			// Its pods go first.
			policy = metav1.DeletePropagationForeground
		}
		err := r.Client.Delete(ctx, o, client.PropagationPolicy(policy), client.Preconditions{UID: new(o.GetUID())})
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	message := fmt.Sprintf("waits for the end of the %s %s", kind, o.GetName())
	if f := o.GetFinalizers(); len(f) > 0 {
		message += ", which is kept by " + strings.Join(f, ", ")
	}
	return &waiting{"Waiting", message}, nil
}

// removeRest deletes what is left in the namespace: all that we made for the Dataset.
func (r *Reconciler) removeRest(ctx context.Context, w *world) error {
	ours := client.MatchingLabels{
		objects.ManagedByLabel: objects.ManagedBy, objects.DatasetLabel: w.key.Name,
		objects.NamespaceLabel: w.key.Namespace,
	}
	in := client.InNamespace(w.key.Namespace)
	for _, list := range []client.ObjectList{
		&corev1.ServiceList{}, &corev1.ConfigMapList{},
		&networkingv1.NetworkPolicyList{}, &policyv1.PodDisruptionBudgetList{},
	} {
		if err := r.Client.List(ctx, list, in, ours); err != nil {
			return err
		}
		items, err := itemsOf(list)
		if err != nil {
			return err
		}
		for _, o := range items {
			if o.GetDeletionTimestamp() != nil {
				continue
			}
			if err := client.IgnoreNotFound(r.Client.Delete(ctx, o)); err != nil {
				return err
			}
		}
	}
	return r.removeSecrets(ctx, w)
}

// removeSecrets deletes the Secrets that we made.
func (r *Reconciler) removeSecrets(ctx context.Context, w *world) error {
	for _, name := range objects.SecretsMade(w.key.Name) {
		key := client.ObjectKey{Namespace: w.key.Namespace, Name: name}
		secret, err := r.secrets.get(ctx, r.Live, key, 0)
		if err != nil {
			return err
		}
		if secret != nil && ownedBy(secret, w.key) {
			if err := client.IgnoreNotFound(r.Client.Delete(ctx, secret)); err != nil {
				return err
			}
		}
		r.secrets.forget(key)
	}
	return nil
}

// itemsOf are the objects of a list.
func itemsOf(list client.ObjectList) ([]client.Object, error) {
	raw, err := meta.ExtractList(list)
	if err != nil {
		return nil, err
	}
	items := make([]client.Object, 0, len(raw))
	for _, o := range raw {
		if item, ok := o.(client.Object); ok {
			items = append(items, item)
		}
	}
	return items, nil
}
