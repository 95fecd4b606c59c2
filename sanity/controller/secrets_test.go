package controller_test

import (
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller/objects"
	"millrace.io/millrace/driver"
	"millrace.io/millrace/sanity/kube"
)

// secretsAreNamed installs the policy that names the Secrets of PersistentVolumes for each publish, and waits until it
// is in force.
func secretsAreNamed(t *testing.T, c client.Client) {
	t.Helper()
	raw, err := os.ReadFile("../../deploy/kustomize/publish-secrets/publish-secrets.yaml")
	must(t, err)
	for _, o := range parse(t, kube.Served(string(raw))) {
		must(t, c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("test")))
	}
	eventually(t, "the Secret of a volume is named", func() string {
		csi := &corev1.CSIPersistentVolumeSource{
			Driver: driver.Name, VolumeHandle: "tried",
			NodeStageSecretRef: &corev1.SecretReference{Namespace: "a", Name: "b"},
		}
		v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "tried"}, Spec: corev1.PersistentVolumeSpec{
			Capacity:               corev1.ResourceList{"storage": quantity("1Gi")},
			AccessModes:            []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: csi},
		}}
		must(t, c.Create(t.Context(), v, client.DryRunAll))
		if v.Spec.CSI.NodePublishSecretRef == nil {
			return "it is not"
		}
		return ""
	})
}

// TestSecretsAreTheControllers has the policy on Secrets in force: the volumes that the controller makes are as it
// makes them, and what is changed of them is set back.
func TestSecretsAreTheControllers(t *testing.T) {
	s, c := server(t)
	secretsAreNamed(t, c)
	ns := namespace(t, c)
	start(t, s, ns, nil)
	class(t, c, ns, `{parameters: {
		csi.storage.k8s.io/node-stage-secret-name: web,
		csi.storage.k8s.io/node-stage-secret-namespace: "${pvc.namespace}"}}`)
	classed := bound(t, c, claim(t, c, ns, "classed", ns, "{}")).Spec.CSI
	want := corev1.SecretReference{Namespace: ns, Name: "web"}
	if stage, publish := classed.NodeStageSecretRef, classed.NodePublishSecretRef; *stage != want || *publish != want {
		t.Errorf("a volume of a class has the Secrets %v and %v", stage, publish)
	}
	create(t, c, ns, walkthrough)
	complete(t, c, ns)
	v := &corev1.PersistentVolume{}
	key := types.NamespacedName{Name: objects.VolumeName(ns, "hbase", false)}
	must(t, c.Get(t.Context(), key, v))
	if csi := v.Spec.CSI; csi.NodeStageSecretRef == nil || csi.NodePublishSecretRef != nil {
		t.Errorf("the volume of a Dataset has the Secrets %v and %v", csi.NodeStageSecretRef, csi.NodePublishSecretRef)
	}
	deleted := map[string]any{"persistentVolumeReclaimPolicy": "Delete"}
	must(t, c.Patch(t.Context(), v, mergePatch(map[string]any{"spec": deleted})))
	eventually(t, "what is changed is set back", func() string {
		must(t, c.Get(t.Context(), key, v))
		if v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain {
			return "it is " + string(v.Spec.PersistentVolumeReclaimPolicy)
		}
		return ""
	})
}
