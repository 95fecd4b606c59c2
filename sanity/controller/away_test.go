package controller_test

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/sanity/kube"
)

// TestAPIServerAway takes the API server away for a while, and changes a spec when it is back.
func TestAPIServerAway(t *testing.T) {
	needKube(t)
	s := kube.ForTest(t, kube.Options{})
	c := withCRDs(t, s)
	installAPI(t, c)
	ns := namespace(t, c)
	start(t, s, ns, nil)
	create(t, c, ns, walkthrough)
	replicas := func(n int32) func() string {
		return func() string {
			set := &appsv1.StatefulSet{}
			if err := c.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "hbase-worker"}, set); err != nil {
				return err.Error()
			}
			if *set.Spec.Replicas != n {
				return "it has other replicas"
			}
			return ""
		}
	}
	eventually(t, "the StatefulSet is there", replicas(2))
	must(t, s.StopAPI())
	time.Sleep(5 * time.Second)
	must(t, s.StartAPI(t.Context()))
	must(t, c.Patch(t.Context(), alluxio(t, c, ns, "hbase"), mergePatch(map[string]any{"spec": map[string]any{"replicas": 4}})))
	eventually(t, "the StatefulSet follows", replicas(4))
}

// TestQuotaExceeded has a quota that leaves no room for Services, until it is taken away.
func TestQuotaExceeded(t *testing.T) {
	s, c := server(t)
	ns := namespace(t, c)
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "few"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/services": quantity("1")}},
		Status:     corev1.ResourceQuotaStatus{Hard: corev1.ResourceList{"count/services": quantity("1")}, Used: corev1.ResourceList{"count/services": quantity("0")}},
	}
	must(t, c.Create(t.Context(), quota))
	// There is no quota controller to begin the counting.
	quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: corev1.ResourceList{"count/services": quantity("0")}}
	must(t, c.Status().Update(t.Context(), quota))
	start(t, s, ns, nil)
	create(t, c, ns, walkthrough)
	eventually(t, "the condition says what happened", func() string {
		line := condition(alluxio(t, c, ns, "hbase").Status.Conditions, v1alpha1.Applied)
		if strings.HasPrefix(line, "Applied=False Forbidden") && strings.Contains(line, "exceeded quota") && strings.Contains(line, "Service hbase-master-1") {
			return ""
		}
		return line
	})
	must(t, c.Delete(t.Context(), quota))
	complete(t, c, ns)
}
