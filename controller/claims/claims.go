// Package claims gives PersistentVolumeClaims of StorageClasses whose provisioner is our driver their volumes, as the
// external-provisioner does for other drivers.
//
// A volume of ours is a description that nodes read when they mount, so the PersistentVolume is all that is ever made,
// and all that is ever deleted: no finalizer has to hold it, and what nodes have cached goes with their use of it.
//
// # Life of a claim
//
//  1. The binder of Kubernetes looks for a volume that is there already. Where none fits it writes the provisioner of
//     the claim's class into an annotation; with WaitForFirstConsumer only when a pod's node is chosen. That
//     annotation is what we wait for (cache.go).
//  2. volume.go makes claim and class into a PersistentVolume, or says what is wrong with one of them. The claim gets
//     an Event either way.
//  3. The binder binds the two. When the claim is deleted it marks the volume as Released, and where the class said
//     Delete we delete it.
//
// What is refused is not tried again before the claim or its class changes; a failure of the API server is, more and
// more slowly. The name of a volume is its claim's UID, so a controller that starts in the middle finds what an earlier
// one made.
//
// Claims and volumes go through one queue: a request without a namespace is a volume's.
//
// D-095 says why.
package claims

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Reconciler serves all claims of our classes. Its fields are set before the first call.
type Reconciler struct {
	// Client reads from caches, Live from the API server.
	Client client.Client
	Live   client.Reader
	// Driver is the provisioner of our classes.
	Driver string
	// Namespace is the only one whose claims are served; all if "".
	Namespace string
	// CheckClass tells what the driver refuses of a class's parameters and mount options.
	CheckClass func(parameters map[string]string, mountOptions []string) error
	Events     events.EventRecorder
	Log        *slog.Logger
}

const (
	workers = 4
	// The pauses between two attempts at what the API server did not do.
	firstPause, longestPause = 200 * time.Millisecond, 5 * time.Minute
	// tellAgain is when a claim that is refused is told so again: Events last an hour.
	tellAgain = 30 * time.Minute
)

var attempts = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "millrace_class_volumes_total",
	Help: "Number of volumes of StorageClasses that were provisioned, refused, failed or deleted.",
}, []string{"outcome"})

// Setup has the manager call the reconciler whenever a claim waits for us, a class of ours changes, or a volume is not
// needed any more.
func (r *Reconciler) Setup(ctx context.Context, mgr ctrl.Manager) error {
	// Several controllers in one process count together.
	if err := metrics.Registry.Register(attempts); err != nil &&
		!errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		return err
	}
	if err := mgr.GetFieldIndexer().IndexField(ctx, &corev1.PersistentVolumeClaim{}, indexClass,
		r.classes); err != nil {
		return err
	}
	only := func(matters func(client.Object) bool) builder.Predicates {
		return builder.WithPredicates(predicate.NewPredicateFuncs(matters))
	}
	return ctrl.NewControllerManagedBy(mgr).Named("claim").
		For(&corev1.PersistentVolumeClaim{}, only(func(o client.Object) bool { return len(r.classes(o)) > 0 })).
		Watches(&storagev1.StorageClass{}, handler.EnqueueRequestsFromMapFunc(r.waiting), only(r.provisions)).
		Watches(&corev1.PersistentVolume{}, &handler.EnqueueRequestForObject{}, only(r.unneeded)).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: workers,
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstPause,
				longestPause),
		}).
		Complete(r)
}

// Reconcile looks at one claim, or at one volume.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	if request.Namespace == "" {
		return ctrl.Result{}, r.release(ctx, request.Name)
	}
	claim, class := &corev1.PersistentVolumeClaim{}, &storagev1.StorageClass{}
	if err := r.Client.Get(ctx, request.NamespacedName, claim); err != nil || !waits(claim, r.Driver) {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	// The binder tells of a class that is not there, and we are called when it comes.
	if err := r.Client.Get(ctx, types.NamespacedName{Name: classOf(claim)}, class); err != nil ||
		!r.provisions(class) || !placed(claim, class) {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	volume, err := r.desired(claim, class)
	if err == nil {
		err = r.create(ctx, volume)
	}
	return r.report(claim, class, err)
}

// desired is the volume, or what is refused.
func (r *Reconciler) desired(
	claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass,
) (*corev1.PersistentVolume, error) {
	volume, err := volumeFor(claim, class)
	if err != nil {
		return nil, &refusal{err}
	}
	if err := r.CheckClass(volume.Spec.CSI.VolumeAttributes, class.MountOptions); err != nil {
		return nil, &refusal{fmt.Errorf("StorageClass %s: %w", class.Name, err)}
	}
	return volume, nil
}

// refusal is what will not be accepted before the claim or its class changes.
type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

// create makes the volume, unless a controller made it that was stopped before it could tell.
func (r *Reconciler) create(ctx context.Context, volume *corev1.PersistentVolume) error {
	err := r.Client.Create(ctx, volume)
	if apierrors.IsInvalid(err) {
		return &refusal{err}
	}
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	there := &corev1.PersistentVolume{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(volume), there); err != nil {
		return err
	}
	if ref := there.Spec.ClaimRef; ref == nil || ref.UID != volume.Spec.ClaimRef.UID {
		return fmt.Errorf("the PersistentVolume %s is there already and was not made for this claim; delete it",
			volume.Name)
	}
	return nil
}

// report tells the claim what came of it. The class is part of the Event, so that what is wrong with another one is
// another Event.
func (r *Reconciler) report(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, err error) (
	ctrl.Result, error,
) {
	name := volumeName(claim)
	if err == nil {
		attempts.WithLabelValues("provisioned").Inc()
		r.Events.Eventf(claim, class, corev1.EventTypeNormal, "ProvisioningSucceeded", "Provision",
			"the PersistentVolume %s is made", name)
		r.Log.Info("provisioned", "claim", client.ObjectKeyFromObject(claim), "class", class.Name, "volume", name)
		return ctrl.Result{}, nil
	}
	r.Events.Eventf(claim, class, corev1.EventTypeWarning, "ProvisioningFailed", "Provision", "%s", note(err))
	if errors.As(err, new(*refusal)) {
		attempts.WithLabelValues("refused").Inc()
		r.Log.Info("a claim is refused", "claim", client.ObjectKeyFromObject(claim), "class", class.Name, "why", err)
		return ctrl.Result{RequeueAfter: tellAgain}, nil
	}
	attempts.WithLabelValues("failed").Inc()
	return ctrl.Result{}, fmt.Errorf("provisioning %s: %w", name, err)
}

// longestNote is how many bytes the API server takes as an Event's text.
const longestNote = 1000

// note is an error as an Event shows it: one line that is not too long.
func note(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if len(text) > longestNote {
		text = strings.ToValidUTF8(text[:longestNote], "") + "…"
	}
	return text
}

// release deletes a volume that is not needed any more. A change of it meanwhile, to keep it perhaps, makes
// this a conflict, after which it is looked at again.
func (r *Reconciler) release(ctx context.Context, name string) error {
	volume := &corev1.PersistentVolume{}
	if err := r.Client.Get(ctx, types.NamespacedName{Name: name}, volume); err != nil || !r.unneeded(volume) {
		return client.IgnoreNotFound(err)
	}
	err := r.Client.Delete(ctx, volume, client.Preconditions{
		UID:             new(volume.UID),
		ResourceVersion: new(volume.ResourceVersion),
	})
	if err != nil {
		return client.IgnoreNotFound(err)
	}
	attempts.WithLabelValues("deleted").Inc()
	r.Log.Info("deleted, as its claim is gone", "volume", name, "claim",
		volume.Spec.ClaimRef.Namespace+"/"+volume.Spec.ClaimRef.Name)
	return nil
}
