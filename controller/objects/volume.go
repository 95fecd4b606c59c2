package objects

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// CapacityAnnotation of a Dataset is the size that its volume shows; it bounds nothing.
const CapacityAnnotation = "pvc.fluid.io/resources.requests.storage"

var standardCapacity = resource.MustParse("100Gi")

func volumeCapacity(d *v1alpha1.Dataset) (resource.Quantity, []Problem) {
	text, ok := d.Annotations[CapacityAnnotation]
	if !ok {
		return standardCapacity, nil
	}
	q, err := resource.ParseQuantity(text)
	if err != nil || q.Sign() <= 0 {
		return q, []Problem{{
			"Dataset.metadata.annotations[" + CapacityAnnotation + "]",
			fmt.Sprintf("is %q; accepted is a size above 0 such as 100Gi", text),
		}}
	}
	return q, nil
}

func accessModes(d *v1alpha1.Dataset) []corev1.PersistentVolumeAccessMode {
	if len(d.Spec.AccessModes) == 0 {
		return []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	}
	return d.Spec.AccessModes
}

// volumeName is the name that the claim has already, which it keeps, or the one that it is to have.
func (b *builder) volumeName() string {
	if b.VolumeName != "" {
		return b.VolumeName
	}
	return VolumeName(b.names.namespace, b.names.name, b.Settings.QualifiedVolumes)
}

// volume is the PersistentVolume, made for one claim.
func (b *builder) volume(capacity resource.Quantity) *corev1.PersistentVolume {
	name := b.volumeName()
	mode := corev1.PersistentVolumeFilesystem
	source := &corev1.CSIPersistentVolumeSource{
		Driver: b.Settings.Driver, VolumeHandle: name,
		VolumeAttributes: map[string]string{
			"source": "alluxio://" + strings.Join(b.masterAddresses(), ",") + b.root(),
		},
		NodeStageSecretRef: &corev1.SecretReference{Name: b.names.node(), Namespace: b.names.namespace},
	}
	v := &corev1.PersistentVolume{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolume"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: capacity},
			AccessModes:                   accessModes(b.Dataset),
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			VolumeMode:                    &mode,
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: b.names.namespace, Name: b.names.name,
			},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: source},
		},
	}
	if uid, gid, given := b.owner(); given {
		v.Spec.MountOptions = []string{fmt.Sprintf("uid=%d", uid), fmt.Sprintf("gid=%d", gid)}
	}
	if selector := b.spec.Fuse.NodeSelector; len(selector) > 0 {
		term := corev1.NodeSelectorTerm{}
		for _, key := range slices.Sorted(maps.Keys(selector)) {
			term.MatchExpressions = append(term.MatchExpressions, corev1.NodeSelectorRequirement{
				Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{selector[key]},
			})
		}
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{term}}}
	}
	return v
}

// owner is whose the files are: the Dataset's owner, or where it has none the user whom Alluxio runs as, if a source is
// a directory of nodes or of a claim. Files there have permissions, and that user is given to read them.
func (b *builder) owner() (uid, gid int64, given bool) {
	as := b.spec.RunAs
	switch o := b.Dataset.Spec.Owner; {
	case o != nil:
		return *o.UID, *o.GID, true
	case as != nil && slices.ContainsFunc(b.mounts, func(m mount) bool {
		return m.kind == onNode ||
			m.kind == inClaim
	}):
		return *as.UID, *as.GID, true
	}
	return 0, 0, false
}

// claim is the PersistentVolumeClaim that pods name.
func (b *builder) claim(capacity resource.Quantity) *corev1.PersistentVolumeClaim {
	none := ""
	mode := corev1.PersistentVolumeFilesystem
	return &corev1.PersistentVolumeClaim{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: b.meta(b.names.name),
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: accessModes(b.Dataset), StorageClassName: &none, VolumeName: b.volumeName(), VolumeMode: &mode,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: capacity}},
		},
	}
}
