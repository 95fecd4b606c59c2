package reconcile

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// TestMountsChanged has the master follow the spec, without a pod being touched.
func TestMountsChanged(t *testing.T) {
	a := newAlluxio(t)
	a.until("it is bound", a.bound)
	a.settle()
	a.master.Did()
	d := a.dataset()
	d.Spec.Mounts = append(d.Spec.Mounts, v1alpha1.Mount{MountPoint: "s3://bucket/b", Name: "b"})
	d.Generation++
	a.must(a.Update(t.Context(), d))
	var did []string
	a.until("both are mounted", func() bool {
		did = append(did, a.master.Did()...)
		return len(a.dataset().Status.Mounts) == 2
	})
	if text := strings.Join(did, ", "); text != "mount /b" {
		t.Errorf("the master was asked for %q", did)
	}
	if pods := a.pods(); len(pods) != 3 {
		t.Errorf("there are %d pods", len(pods))
	}
	if o := a.runtime(); len(o.Status.Mounts) != 2 {
		t.Errorf("the runtime tells of %v", o.Status.Mounts)
	}
}

// TestRefusedMountIsNotTold says of no mount that it is there while the master does not have it, from the first look at
// the new spec on.
func TestRefusedMountIsNotTold(t *testing.T) {
	a := newAlluxio(t)
	a.until("it is bound", a.bound)
	a.settle()
	a.master.Refuse(func(call, path string) error {
		if call == "mount" && path == "/b" {
			return status.Error(codes.PermissionDenied, "not with these keys")
		}
		return nil
	})
	d := a.dataset()
	d.Spec.Mounts = append(d.Spec.Mounts, v1alpha1.Mount{MountPoint: "s3://bucket/b", Name: "b"})
	d.Generation++
	a.must(a.Update(t.Context(), d))
	a.until("the refusal is told", func() bool {
		d := a.dataset()
		mounted, ready := find(d.Status.Conditions, v1alpha1.Mounted), find(d.Status.Conditions, v1alpha1.Ready)
		if len(d.Status.Mounts) != 1 || len(a.runtime().Status.Mounts) != 1 ||
			mounted.Status != corev1.ConditionFalse || ready.Status != corev1.ConditionFalse ||
			d.Status.Phase != v1alpha1.Updating {
			t.Fatalf("it is %s with %v: %s, %s", d.Status.Phase, d.Status.Mounts, a.condition("Ready"), a.condition("Mounted"))
		}
		return strings.Contains(ready.Message, "not with these keys")
	})
}

// pods are those of Alluxio that are there.
func (a *alluxio) pods() []corev1.Pod {
	a.t.Helper()
	var pods corev1.PodList
	a.must(a.List(a.t.Context(), &pods, client.InNamespace(key.Namespace)))
	return pods.Items
}
