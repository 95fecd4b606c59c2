package controller_test

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller/objects"
)

// TestNodesAreSwept has workers on nodes: when one leaves, and at the end, what is in the nodes' directories is
// removed.
func TestNodesAreSwept(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	ns := namespace(t, c)
	must(t, client.IgnoreAlreadyExists(c.Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "millrace-system"}})))
	start(t, s, ns, nil)
	specs := create(t, c, ns, walkthrough)
	complete(t, c, ns)
	nodes := []string{"node-a", "node-b"}
	for i, node := range nodes {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprintf("hbase-worker-%d", i)}}
		eventually(t, "the worker's pod is bound", func() string {
			binding := &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: node}}
			if err := c.SubResource("binding").Create(t.Context(), pod, binding); err != nil {
				return err.Error()
			}
			return ""
		})
	}
	remembered := func(want ...string) {
		t.Helper()
		eventually(t, "the nodes are remembered", func() string {
			if got := alluxio(t, c, ns, "hbase").Status.TierNodes; !slices.Equal(got, want) {
				return fmt.Sprintf("they are %v, want %v", got, want)
			}
			return ""
		})
	}
	remembered(nodes...)
	if out, err := s.Kubectl(t.Context(), "scale", "alluxioruntime", "hbase", "--replicas=1", "-n", ns); err != nil {
		t.Fatal(out)
	}
	ended(t, c, ns, "hbase-worker-1")
	swept(t, c, ns, "node-b")
	remembered("node-a")
	for _, o := range specs {
		must(t, c.Delete(t.Context(), o))
	}
	ended(t, c, ns, "hbase-worker-0")
	swept(t, c, ns, "node-a")
	gone(t, c, ns)
}

// ended has a pod that is deleted end, as its kubelet would.
func ended(t *testing.T, c client.Client, ns, name string) {
	t.Helper()
	pod := &corev1.Pod{}
	eventually(t, "the pod "+name+" is deleted", func() string {
		must(t, c.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, pod))
		if pod.DeletionTimestamp == nil {
			return "it is not"
		}
		return ""
	})
	must(t, c.Delete(t.Context(), pod, client.GracePeriodSeconds(0)))
}

// swept has the sweeper on a node end well, as its kubelet would, and waits until it is gone.
func swept(t *testing.T, c client.Client, ns, node string) {
	t.Helper()
	key := client.ObjectKey{Namespace: "millrace-system", Name: objects.SweeperName(ns, "hbase", node)}
	pod := &corev1.Pod{}
	eventually(t, "there is a sweeper", func() string {
		if err := c.Get(t.Context(), key, pod); err != nil {
			return err.Error()
		}
		return ""
	})
	if pod.Spec.NodeName != node || pod.Spec.Volumes[0].HostPath.Path != "/dev/shm" {
		t.Errorf("the sweeper is on %s, in %v", pod.Spec.NodeName, pod.Spec.Volumes)
	}
	pod.Status.Phase = corev1.PodSucceeded
	must(t, c.Status().Update(t.Context(), pod))
	eventually(t, "the sweeper is gone", func() string {
		if err := c.Get(t.Context(), key, pod); client.IgnoreNotFound(err) != nil || err == nil {
			return fmt.Sprint("it is there: ", err)
		}
		return ""
	})
}
