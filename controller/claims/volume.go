package claims

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"millrace.io/millrace/controller/objects"
)

// The parameters of a class that are not the driver's.
const (
	reservedPrefix     = "csi.storage.k8s.io/"
	secretNameKey      = reservedPrefix + "node-stage-secret-name"
	secretNamespaceKey = reservedPrefix + "node-stage-secret-namespace"
)

// What the two may have in them of the claim.
const (
	wordsOfName      = "${pv.name}, ${pvc.namespace}, ${pvc.name}, ${pvc.annotations['KEY']}"
	wordsOfNamespace = "${pv.name}, ${pvc.namespace}"
	annotationWord   = "pvc.annotations['"
)

// volumeName is the name of the volume for a claim, the same by whatever process.
func volumeName(claim *corev1.PersistentVolumeClaim) string { return "pvc-" + string(claim.UID) }

// volumeFor is the volume that a class has for a claim. An error is a sentence that names what is not accepted, and
// what is. Any access mode is: no pod can write.
func volumeFor(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) (*corev1.PersistentVolume, error) {
	if err := checkClaim(claim); err != nil {
		return nil, err
	}
	secret, err := stageSecret(claim, class)
	if err != nil {
		return nil, err
	}
	parameters := maps.Clone(class.Parameters)
	maps.DeleteFunc(parameters, func(key, _ string) bool { return strings.HasPrefix(key, reservedPrefix) })
	policy, mode := corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeFilesystem
	if class.ReclaimPolicy != nil {
		policy = *class.ReclaimPolicy
	}
	name := volumeName(claim)
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Labels:      map[string]string{objects.ManagedByLabel: objects.ManagedBy},
			Annotations: map[string]string{provisionedAnnotation: class.Provisioner},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes: claim.Spec.AccessModes, VolumeMode: &mode, StorageClassName: class.Name,
			MountOptions:                  class.MountOptions,
			PersistentVolumeReclaimPolicy: policy, NodeAffinity: affinity(class.AllowedTopologies),
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: class.Provisioner, VolumeHandle: name, VolumeAttributes: parameters,
				// Kubelet asks for a stage once on a node, and for a publish with each pod.
				NodeStageSecretRef: secret, NodePublishSecretRef: secret.DeepCopy(),
			}},
		},
	}, nil
}

// checkClaim refuses what a claim may ask of other drivers.
func checkClaim(claim *corev1.PersistentVolumeClaim) error {
	switch spec := &claim.Spec; {
	case spec.VolumeMode != nil && *spec.VolumeMode != corev1.PersistentVolumeFilesystem:
		return fmt.Errorf("PersistentVolumeClaim.spec.volumeMode is %s; accepted is Filesystem", *spec.VolumeMode)
	case spec.Selector != nil:
		return errors.New("PersistentVolumeClaim.spec.selector is set; accepted is none, as the volume is made for " +
			"the claim and has no labels to choose by")
	case spec.DataSource != nil:
		return fmt.Errorf("PersistentVolumeClaim.spec.dataSource is the %s %s; accepted is none, as a cache has no "+
			"snapshots and no clones", spec.DataSource.Kind, spec.DataSource.Name)
	case spec.DataSourceRef != nil:
		return fmt.Errorf("PersistentVolumeClaim.spec.dataSourceRef is the %s %s; accepted is none, as a cache has no "+
			"snapshots and no clones", spec.DataSourceRef.Kind, spec.DataSourceRef.Name)
	case spec.VolumeAttributesClassName != nil && *spec.VolumeAttributesClassName != "":
		return fmt.Errorf("PersistentVolumeClaim.spec.volumeAttributesClassName is %s; accepted is none, as a volume "+
			"keeps its parameters", *spec.VolumeAttributesClassName)
	}
	return nil
}

// affinity keeps a volume to the nodes that the class allows; to none in particular where it names none.
func affinity(allowed []corev1.TopologySelectorTerm) *corev1.VolumeNodeAffinity {
	if len(allowed) == 0 {
		return nil
	}
	terms := make([]corev1.NodeSelectorTerm, len(allowed))
	for i, term := range allowed {
		for _, e := range term.MatchLabelExpressions {
			terms[i].MatchExpressions = append(terms[i].MatchExpressions,
				corev1.NodeSelectorRequirement{Key: e.Key, Operator: corev1.NodeSelectorOpIn, Values: e.Values})
		}
	}
	return &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: terms}}
}

// stageSecret is the Secret with the options of the source, nil where the class names none. The driver reads no other:
// not when it publishes, and not when it makes a volume.
func stageSecret(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) (*corev1.SecretReference, error) {
	for _, key := range slices.Sorted(maps.Keys(class.Parameters)) {
		if strings.HasPrefix(key, reservedPrefix) && key != secretNameKey && key != secretNamespaceKey {
			return nil, fmt.Errorf("StorageClass.parameters[%s] is %q; accepted with that prefix are %s and %s", key,
				class.Parameters[key], secretNameKey, secretNamespaceKey)
		}
	}
	name, namespace := class.Parameters[secretNameKey], class.Parameters[secretNamespaceKey]
	if name == "" && namespace == "" {
		return nil, nil //nolint:nilnil // No Secret is no error.
	}
	if name == "" || namespace == "" {
		return nil, fmt.Errorf("StorageClass.parameters[%s] is %q and [%s] is %q; accepted are both or neither",
			secretNameKey, name, secretNamespaceKey, namespace)
	}
	words := map[string]string{"pv.name": volumeName(claim), "pvc.namespace": claim.Namespace}
	inNamespace, err := filled(secretNamespaceKey, namespace, words, wordsOfNamespace, validation.IsDNS1123Label)
	if err != nil {
		return nil, err
	}
	// What the claim's author writes may choose the Secret, and never its namespace.
	words["pvc.name"] = claim.Name
	for key, value := range claim.Annotations {
		words[annotationWord+key+"']"] = value
	}
	called, err := filled(secretNameKey, name, words, wordsOfName, validation.IsDNS1123Subdomain)
	if err != nil {
		return nil, err
	}
	return &corev1.SecretReference{Namespace: inNamespace, Name: called}, nil
}

var placeholder = regexp.MustCompile(`\$\{[^}]*\}`)

// filled is a parameter with the claim's words in it.
func filled(key, text string, words map[string]string, accepted string, check func(string) []string) (string, error) {
	missing := ""
	out := placeholder.ReplaceAllStringFunc(text, func(p string) string {
		value, ok := words[p[2:len(p)-1]]
		if !ok {
			missing = p
		}
		return value
	})
	switch {
	case strings.HasPrefix(missing, "${"+annotationWord) && strings.Contains(accepted, annotationWord):
		return "", fmt.Errorf("StorageClass.parameters[%s] is %q, and the claim has no such annotation", key, text)
	case missing != "":
		return "", fmt.Errorf("StorageClass.parameters[%s] is %q; accepted in it are %s", key, text, accepted)
	case len(check(out)) > 0:
		return "", fmt.Errorf("StorageClass.parameters[%s] is %q, which makes the name %q; accepted are lower-case "+
			"letters, digits and dashes, and %s", key, text, out, accepted)
	}
	return out, nil
}
