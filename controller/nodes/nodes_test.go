package nodes

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

const (
	taint  = "csi.millrace.io/not-ready"
	driver = "csi.millrace.io"
)

// node is one with taints of these keys.
func node(keys ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	for _, key := range keys {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
	}
	return n
}

// registered is what kubelet says of the drivers of a node.
func registered(name string, drivers ...string) *storagev1.CSINode {
	n := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, d := range drivers {
		n.Spec.Drivers = append(n.Spec.Drivers, storagev1.CSINodeDriver{Name: d, NodeID: name})
	}
	return n
}

// TestStartupTaint takes the taint off a node where the driver has registered, and no other taint. It writes to no node
// where nothing is to be done.
func TestStartupTaint(t *testing.T) {
	other := "node.kubernetes.io/unschedulable"
	twice := node(taint, other, taint)
	twice.Spec.Taints[2].Effect = corev1.TaintEffectNoExecute
	for name, tc := range map[string]struct {
		there  []client.Object
		left   string
		writes int
	}{
		"the driver is there":         {[]client.Object{node(taint), registered("a", driver)}, "", 1},
		"beside others":               {[]client.Object{node(other, taint), registered("a", "x", driver)}, other, 1},
		"with each effect":            {[]client.Object{twice, registered("a", driver)}, other, 1},
		"another driver":              {[]client.Object{node(taint), registered("a", "csi.example.org")}, taint, 0},
		"no driver yet":               {[]client.Object{node(taint), registered("a")}, taint, 0},
		"kubelet has said nothing":    {[]client.Object{node(taint)}, taint, 0},
		"the driver of another node":  {[]client.Object{node(taint), registered("b", driver)}, taint, 0},
		"no such taint":               {[]client.Object{node(other), registered("a", driver)}, other, 0},
		"a taint that begins like it": {[]client.Object{node(taint + "-yet"), registered("a", driver)}, taint + "-yet", 0},
		"the node is gone":            {[]client.Object{registered("a", driver)}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			writes := 0
			c := fake.NewClientBuilder().WithObjects(tc.there...).WithInterceptorFuncs(interceptor.Funcs{
				Patch: func(
					ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption,
				) error {
					writes++
					return c.Patch(ctx, o, p, opts...)
				},
			}).Build()
			r := &Reconciler{Client: c, Taint: taint, Driver: driver, Log: slog.New(slog.DiscardHandler)}
			for range 2 {
				if _, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Name: "a"}}); err != nil {
					t.Fatal(err)
				}
			}
			var after corev1.Node
			if err := c.Get(t.Context(), client.ObjectKey{Name: "a"}, &after); client.IgnoreNotFound(err) != nil {
				t.Fatal(err)
			}
			var left []string
			for _, have := range after.Spec.Taints {
				left = append(left, have.Key)
			}
			if got := strings.Join(left, " "); got != tc.left || writes != tc.writes {
				t.Errorf("left are %q after %d writes", got, writes)
			}
		})
	}
}

// TestTaintsThatChangedMeanwhile are not overwritten: what is there is looked at again.
func TestTaintsThatChangedMeanwhile(t *testing.T) {
	c := fake.NewClientBuilder().WithObjects(node(taint), registered("a", driver)).WithInterceptorFuncs(interceptor.Funcs{
		Patch: func(
			ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption,
		) error {
			changed := &corev1.Node{}
			if err := c.Get(ctx, client.ObjectKeyFromObject(o), changed); err != nil {
				return err
			}
			changed.Spec.Taints = append(changed.Spec.Taints, corev1.Taint{Key: "new", Effect: corev1.TaintEffectNoExecute})
			if err := c.Update(ctx, changed); err != nil {
				return err
			}
			return c.Patch(ctx, o, p, opts...)
		},
	}).Build()
	r := &Reconciler{Client: c, Taint: taint, Driver: driver, Log: slog.New(slog.DiscardHandler)}
	_, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Name: "a"}})
	if !apierrors.IsConflict(err) {
		t.Errorf("it is %v", err)
	}
	var after corev1.Node
	if err := c.Get(t.Context(), client.ObjectKey{Name: "a"}, &after); err != nil || len(after.Spec.Taints) != 2 {
		t.Errorf("left are %v, %v", after.Spec.Taints, err)
	}
}

// TestCheckTaint accepts the key of a taint and no more: a value or an effect is not told apart.
func TestCheckTaint(t *testing.T) {
	for key, accepted := range map[string]bool{
		taint: true, "not-ready": true, "": false, taint + "=true": false, taint + ":NoSchedule": false, "a b": false,
	} {
		if err := CheckTaint(key); (err == nil) != accepted {
			t.Errorf("%q: %v", key, err)
		}
	}
}

// TestKeptOfANode is what is looked at: the taints, and what a patch needs.
func TestKeptOfANode(t *testing.T) {
	whole := node(taint)
	whole.Labels, whole.UID, whole.ResourceVersion = map[string]string{"long": "text"}, "u", "7"
	whole.Status.Images = []corev1.ContainerImage{{Names: []string{"large"}}}
	kept, err := slimNode(whole)
	if err != nil {
		t.Fatal(err)
	}
	slim, _ := kept.(*corev1.Node)
	if slim.Name != "a" || slim.UID != "u" || slim.ResourceVersion != "7" || len(slim.Spec.Taints) != 1 ||
		slim.Labels != nil || slim.Status.Images != nil {
		t.Errorf("%+v", slim)
	}
	if same, err := slimNode("a tombstone"); err != nil || same != "a tombstone" {
		t.Errorf("what is no node became %v, %v", same, err)
	}
}
