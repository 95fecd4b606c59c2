package controller_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller"
)

const startupTaint = "csi.millrace.io/not-ready"

// tainted makes a node that carries the startup taint and one of another program.
func tainted(t *testing.T, c client.Client, name string) *corev1.Node {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{
		{Key: "example.org/gpu", Value: "yes", Effect: corev1.TaintEffectNoSchedule},
		{Key: startupTaint, Effect: corev1.TaintEffectNoExecute},
		{Key: startupTaint, Effect: corev1.TaintEffectNoSchedule},
	}}}
	must(t, c.Create(t.Context(), node))
	removed(t, c, node)
	return node
}

// registered has kubelet's object of a node say that these drivers have come up there.
func registered(t *testing.T, c client.Client, node *corev1.Node, drivers ...string) {
	t.Helper()
	o := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: node.Name}}
	for _, d := range drivers {
		o.Spec.Drivers = append(o.Spec.Drivers, storagev1.CSINodeDriver{Name: d, NodeID: node.Name})
	}
	if err := c.Create(t.Context(), o); apierrors.IsAlreadyExists(err) {
		was := &storagev1.CSINode{}
		must(t, c.Get(t.Context(), client.ObjectKeyFromObject(o), was))
		o.ResourceVersion = was.ResourceVersion
		must(t, c.Update(t.Context(), o))
	} else {
		must(t, err)
	}
	removed(t, c, o)
}

// taints are the keys of a node's taints, without those that the API server gives to a new one.
func taints(t *testing.T, c client.Client, node *corev1.Node) string {
	t.Helper()
	now := &corev1.Node{}
	must(t, c.Get(t.Context(), client.ObjectKeyFromObject(node), now))
	var keys []string
	for _, taint := range now.Spec.Taints {
		if taint.Key == startupTaint || taint.Key == "example.org/gpu" {
			keys = append(keys, taint.Key)
		}
	}
	return fmt.Sprint(keys)
}

// TestStartupTaint runs a controller with its generated rights: a node loses the startup taint, and no other, when our
// driver has registered there, whichever comes first.
func TestStartupTaint(t *testing.T) {
	s, c := server(t)
	grant(t, c, "taints", "role.yaml")
	grant(t, c, "taints", "nodes.yaml")
	ready := tainted(t, c, "ready-before-the-controller")
	registered(t, c, ready, "other.example.org", "csi.millrace.io")
	never, late := tainted(t, c, "never-ready"), tainted(t, c, "ready-later")
	registered(t, c, never, "other.example.org")
	start(t, s, namespace(t, c), func(config *controller.Config) {
		api, err := s.Config("taints")
		must(t, err)
		config.API, config.Taint = api, startupTaint
	})
	free := func(node *corev1.Node) {
		t.Helper()
		eventually(t, "the node "+node.Name+" loses the taint", func() string {
			if now := taints(t, c, node); now != "[example.org/gpu]" {
				return "it has " + now
			}
			return ""
		})
	}
	free(ready)
	if now := taints(t, c, late); now != fmt.Sprint([]string{"example.org/gpu", startupTaint, startupTaint}) {
		t.Errorf("before the driver is there the node has %s", now)
	}
	begun := time.Now()
	registered(t, c, late, "csi.millrace.io")
	free(late)
	t.Logf("the taint went %v after the driver had registered", time.Since(begun).Round(time.Millisecond))

	// An administrator puts it on again, for a reboot perhaps.
	again := &corev1.Node{}
	must(t, c.Get(t.Context(), client.ObjectKeyFromObject(late), again))
	again.Spec.Taints = append(slices.Clone(again.Spec.Taints),
		corev1.Taint{Key: startupTaint, Effect: corev1.TaintEffectNoSchedule})
	must(t, c.Update(t.Context(), again))
	free(late)
	if now := taints(t, c, never); now != fmt.Sprint([]string{"example.org/gpu", startupTaint, startupTaint}) {
		t.Errorf("where only another driver is the node has %s", now)
	}
}
