package claims

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	sigsyaml "sigs.k8s.io/yaml"

	"millrace.io/millrace/controller/objects"
)

const driver = "csi.millrace.io"

const plainClaim = `
metadata: {name: data, namespace: team, uid: 8d1c, annotations: {volume.kubernetes.io/storage-provisioner: csi.millrace.io, example.org/key: west}}
spec: {storageClassName: weather, accessModes: [ReadOnlyMany], resources: {requests: {storage: 5Gi}}}
`

const plainClass = `
metadata: {name: weather}
provisioner: csi.millrace.io
reclaimPolicy: Delete
parameters: {source: "https://example.org/", quota: 1Gi}
`

// object reads YAML, and merges more into it.
func object[T any](t *testing.T, texts ...string) *T {
	t.Helper()
	out := new(T)
	for _, text := range texts {
		raw, err := sigsyaml.YAMLToJSONStrict([]byte(text))
		if err == nil {
			err = json.Unmarshal(raw, out)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestVolume compares whole volumes: of a plain class, and of one that says all that a class can say.
func TestVolume(t *testing.T) {
	for _, c := range []struct{ name, claim, class, want string }{
		{"plain", "{}", "{}", `
metadata: {name: pvc-8d1c, labels: {app.kubernetes.io/managed-by: millrace}, annotations: {pv.kubernetes.io/provisioned-by: csi.millrace.io}}
spec:
  capacity: {storage: 5Gi}
  accessModes: [ReadOnlyMany]
  volumeMode: Filesystem
  storageClassName: weather
  persistentVolumeReclaimPolicy: Delete
  claimRef: {apiVersion: v1, kind: PersistentVolumeClaim, namespace: team, name: data, uid: 8d1c}
  csi: {driver: csi.millrace.io, volumeHandle: pvc-8d1c, volumeAttributes: {source: "https://example.org/", quota: 1Gi}}
status: {}
`},
		{"everything", `{spec: {accessModes: [ReadWriteOncePod, ReadWriteMany]}}`, `
reclaimPolicy: Retain
mountOptions: [uid=7, ro]
allowedTopologies:
  - matchLabelExpressions: [{key: topology.kubernetes.io/zone, values: [a, b]}, {key: disk, values: [ssd]}]
  - matchLabelExpressions: [{key: topology.kubernetes.io/zone, values: [c]}]
parameters:
  csi.storage.k8s.io/node-stage-secret-name: ${pvc.name}-${pvc.annotations['example.org/key']}-${pv.name}
  csi.storage.k8s.io/node-stage-secret-namespace: ${pvc.namespace}
`, `
metadata: {name: pvc-8d1c, labels: {app.kubernetes.io/managed-by: millrace}, annotations: {pv.kubernetes.io/provisioned-by: csi.millrace.io}}
spec:
  capacity: {storage: 5Gi}
  accessModes: [ReadWriteOncePod, ReadWriteMany]
  volumeMode: Filesystem
  storageClassName: weather
  mountOptions: [uid=7, ro]
  persistentVolumeReclaimPolicy: Retain
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions: [{key: topology.kubernetes.io/zone, operator: In, values: [a, b]}, {key: disk, operator: In, values: [ssd]}]
        - matchExpressions: [{key: topology.kubernetes.io/zone, operator: In, values: [c]}]
  claimRef: {apiVersion: v1, kind: PersistentVolumeClaim, namespace: team, name: data, uid: 8d1c}
  csi:
    driver: csi.millrace.io
    volumeHandle: pvc-8d1c
    volumeAttributes: {source: "https://example.org/", quota: 1Gi}
    nodeStageSecretRef: {namespace: team, name: data-west-pvc-8d1c}
    nodePublishSecretRef: {namespace: team, name: data-west-pvc-8d1c}
status: {}
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := volumeFor(object[corev1.PersistentVolumeClaim](t, plainClaim, c.claim),
				object[storagev1.StorageClass](t, plainClass, c.class))
			if err != nil {
				t.Fatal(err)
			}
			have, err := sigsyaml.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			want, err := sigsyaml.Marshal(object[corev1.PersistentVolume](t, c.want))
			if err != nil {
				t.Fatal(err)
			}
			if string(have) != string(want) {
				t.Errorf("got\n%s\nwant\n%s", have, want)
			}
		})
	}
}

// TestVolumeRefuses looks for what is wrong and what is accepted in each sentence.
func TestVolumeRefuses(t *testing.T) {
	secret := func(name, namespace string) string {
		return "{parameters: {csi.storage.k8s.io/node-stage-secret-name: \"" + name +
			"\", csi.storage.k8s.io/node-stage-secret-namespace: \"" + namespace + "\"}}"
	}
	for _, c := range []struct{ claim, class, want string }{
		{"{spec: {volumeMode: Block}}", "{}", "PersistentVolumeClaim.spec.volumeMode is Block; accepted is Filesystem"},
		{
			"{spec: {selector: {matchLabels: {a: b}}}}", "{}",
			"PersistentVolumeClaim.spec.selector is set; accepted is none",
		},
		{
			"{spec: {dataSource: {kind: PersistentVolumeClaim, name: other}}}", "{}",
			"spec.dataSource is the PersistentVolumeClaim other; accepted is none",
		},
		{
			"{spec: {dataSourceRef: {kind: Populator, name: p}}}", "{}",
			"spec.dataSourceRef is the Populator p; accepted is none",
		},
		{"{spec: {volumeAttributesClassName: gold}}", "{}", "spec.volumeAttributesClassName is gold; accepted is none"},
		{
			"{}", "{parameters: {csi.storage.k8s.io/fstype: ext4}}",
			`StorageClass.parameters[csi.storage.k8s.io/fstype] is "ext4"; accepted with that prefix are csi.storage.k8s.io/node-stage-secret-name and`,
		},
		{"{}", "{parameters: {csi.storage.k8s.io/node-publish-secret-name: x}}", "accepted with that prefix are"},
		{"{}", secret("x", ""), `[csi.storage.k8s.io/node-stage-secret-namespace] is ""; accepted are both or neither`},
		{
			"{}", secret("${pvc.uid}", "a"),
			`is "${pvc.uid}"; accepted in it are ${pv.name}, ${pvc.namespace}, ${pvc.name}, ${pvc.annotations['KEY']}`,
		},
		{"{}", secret("x", "${pvc.name}"), `is "${pvc.name}"; accepted in it are ${pv.name}, ${pvc.namespace}`},
		{"{}", secret("x", "${pvc.annotations['example.org/key']}"), "accepted in it are ${pv.name}, ${pvc.namespace}"},
		{"{}", secret("${pvc.annotations['other']}", "a"), "and the claim has no such annotation"},
		{"{}", secret("$pvc.name", "a"), `makes the name "$pvc.name"; accepted are lower-case letters`},
		{
			"{metadata: {annotations: {example.org/key: ../x}}}", secret("${pvc.annotations['example.org/key']}", "a"),
			`makes the name "../x"`,
		},
	} {
		_, err := volumeFor(object[corev1.PersistentVolumeClaim](t, plainClaim, c.claim),
			object[storagev1.StorageClass](t, plainClass, c.class))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v, want %q", c.claim, c.class, err, c.want)
		}
	}
}

// TestCacheKeepsLittle: claims of others are names, those that wait are whole, those of Datasets too.
func TestCacheKeepsLittle(t *testing.T) {
	for _, c := range []struct {
		name, change string
		whole        bool
	}{
		{"waits", "{}", true},
		{"is bound", "{spec: {volumeName: pvc-8d1c}}", false},
		{
			"of another provisioner",
			"{metadata: {annotations: {volume.kubernetes.io/storage-provisioner: other.example.org}}}", false,
		},
		{"of a Dataset", "{metadata: {labels: {app.kubernetes.io/managed-by: millrace}}, spec: {volumeName: v}}", true},
	} {
		claim := object[corev1.PersistentVolumeClaim](t, plainClaim, c.change)
		out, err := slimClaim(driver)(claim.DeepCopy())
		slim, ok := out.(*corev1.PersistentVolumeClaim)
		if err != nil || !ok || slim.UID != claim.UID || slim.Name != "data" || slim.Namespace != "team" {
			t.Fatalf("%s: %v, %v", c.name, out, err)
		}
		if whole := len(slim.Annotations) == 2 && len(slim.Spec.AccessModes) == 1; whole != c.whole {
			t.Errorf("%s: kept whole: %v, want %v: %v", c.name, whole, c.whole, slim)
		}
	}
	volume, err := volumeFor(object[corev1.PersistentVolumeClaim](t, plainClaim),
		object[storagev1.StorageClass](t, plainClass))
	if err != nil {
		t.Fatal(err)
	}
	r := &Reconciler{Driver: driver}
	for phase, unneeded := range map[corev1.PersistentVolumePhase]bool{
		corev1.VolumeBound:    false,
		corev1.VolumeReleased: true,
	} {
		volume.Status.Phase = phase
		out, err := slimVolume(volume.DeepCopy())
		slim, ok := out.(*corev1.PersistentVolume)
		if err != nil || !ok || slim.Spec.CSI != nil || slim.Spec.ClaimRef.UID != types.UID("8d1c") ||
			slim.Labels[objects.ManagedByLabel] == "" {
			t.Fatalf("%v, %v", out, err)
		}
		if r.unneeded(slim) != unneeded {
			t.Errorf("a volume that is %s is unneeded: %v", phase, !unneeded)
		}
	}
}
