// Package nodes takes the startup taint off nodes on which the CSI driver has come up.
//
// An administrator registers new nodes with the taint, so that no pod with a volume lands there before the driver.
// Kubelet writes the drivers that have registered with it into the node's CSINode; when ours is among them, the taint
// has done its duty. So neither the driver nor the agent needs rights on the API server, and a node that never gets the
// driver keeps its taint.
//
// Nodes and CSINodes have the same name and go through one queue: whichever changes, both are looked at, in the caches.
// Of a Node only name and taints are kept.
//
// +kubebuilder:rbac:groups="",resources=nodes,verbs=list;watch;patch
// +kubebuilder:rbac:groups=storage.k8s.io,resources=csinodes,verbs=list;watch
//
// D-103 says why.
package nodes

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
)

// Reconciler takes the taint off. Its fields are set before the first call.
type Reconciler struct {
	Client client.Client
	// Taint is the taint's key; its value and its effect may be any.
	Taint string
	// Driver is the name of the CSI driver that is waited for.
	Driver string
	Log    *slog.Logger
}

// CheckTaint reports whether a text can be the key of a taint.
func CheckTaint(key string) error {
	if len(validation.IsQualifiedName(key)) > 0 {
		return errors.New("not the key of a taint: accepted is one such as csi.millrace.io/not-ready")
	}
	return nil
}

// Kept keeps of nodes what is looked at.
func Kept() cache.ByObject { return cache.ByObject{Transform: slimNode} }

func slimNode(in any) (any, error) {
	node, ok := in.(*corev1.Node)
	if !ok {
		return in, nil
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: node.Name, UID: node.UID, ResourceVersion: node.ResourceVersion},
		Spec:       corev1.NodeSpec{Taints: node.Spec.Taints},
	}, nil
}

// Setup has the manager call the reconciler whenever a node changes, or what is registered with its kubelet.
func (r *Reconciler) Setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("node").
		For(&corev1.Node{}).
		Watches(&storagev1.CSINode{}, &handler.EnqueueRequestForObject{}).
		Complete(r)
}

// Reconcile looks at one node.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	node, registered := &corev1.Node{}, &storagev1.CSINode{}
	if err := r.Client.Get(ctx, request.NamespacedName, node); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !slices.ContainsFunc(node.Spec.Taints, r.ours) {
		return ctrl.Result{}, nil
	}
	if err := r.Client.Get(ctx, request.NamespacedName, registered); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !r.serves(registered) {
		return ctrl.Result{}, nil
	}
	// The list of taints is one value: a change of it meanwhile makes this a conflict, after which all is looked at
	// again.
	before := node.DeepCopy()
	node.Spec.Taints = slices.DeleteFunc(slices.Clone(node.Spec.Taints), r.ours)
	if err := r.Client.Patch(ctx, node, client.MergeFromWithOptions(before,
		client.MergeFromWithOptimisticLock{})); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	r.Log.Info("the driver is ready on a node, which loses its startup taint", "node", node.Name, "taint", r.Taint)
	return ctrl.Result{}, nil
}

func (r *Reconciler) ours(t corev1.Taint) bool { return t.Key == r.Taint }

// serves reports whether the driver has registered with the node's kubelet.
func (r *Reconciler) serves(n *storagev1.CSINode) bool {
	return slices.ContainsFunc(n.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == r.Driver })
}
