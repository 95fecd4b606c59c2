package objects

import (
	"fmt"
	"maps"
	"path"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RoleSweeper is the role of pods that remove the directories of tiers from a node.
const RoleSweeper = "alluxio-sweeper"

// SweeperName is the name of a Dataset's sweeper on a node, in the controller's namespace.
func SweeperName(namespace, dataset, node string) string {
	return "sweeper-" + shortHash(namespace+"/"+dataset) + "-" + shortHash(node)
}

// SweeperLabels select the sweepers of a Dataset.
func SweeperLabels(namespace, dataset string) map[string]string {
	return map[string]string{
		ManagedByLabel: ManagedBy, NamespaceLabel: namespace, DatasetLabel: dataset, SweepsLabel: dataset,
	}
}

// Sweeper returns a pod that removes from a node what workers left there, nil where the tiers are the pods' own. It is
// in the controller's namespace, for the Dataset's may be on its way out, or let no such pod in, and runs the image
// that the node's agent has. A runtime whose tiers cannot be read has none.
func Sweeper(in Input, node string) *corev1.Pod {
	b := &builder{Input: in, spec: &in.Runtime.Spec, names: names{in.Runtime.Namespace, in.Runtime.Name}}
	var problems []Problem
	if b.tiers, problems = resolveTiers(b.names, b.spec); len(problems) > 0 {
		return nil
	}
	var volumes []corev1.Volume
	var mounts []corev1.VolumeMount
	args := []string{"sweep", b.names.namespace + "/" + b.names.name}
	for i := range b.tiers {
		for j, d := range b.tiers[i].dirs {
			if b.tiers[i].emptyDir {
				continue
			}
			kind := corev1.HostPathDirectoryOrCreate
			name, at := fmt.Sprintf("tier-%d-%d", i, j), fmt.Sprintf("/sweep/%d-%d", i, j)
			// The directory is DIR/NAMESPACE/NAME.
			volumes = append(volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: path.Dir(path.Dir(d.path)), Type: &kind},
			}})
			mounts = append(mounts, corev1.VolumeMount{Name: name, MountPath: at})
			args = append(args, at)
		}
	}
	if len(volumes) == 0 {
		return nil
	}
	return b.sweeper(node, volumes, b.sweeperContainer(args, mounts))
}

func (b *builder) sweeper(node string, volumes []corev1.Volume, c corev1.Container) *corev1.Pod {
	no := false
	labels := SweeperLabels(b.names.namespace, b.names.name)
	maps.Copy(labels, map[string]string{roleLabel: RoleSweeper, occupiesLabel: cacheNodeValue(b.names)})
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: SweeperName(b.names.namespace, b.names.name, node), Namespace: b.Settings.Namespace, Labels: labels,
		},
		Spec: corev1.PodSpec{
			NodeName: node, Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			RestartPolicy: corev1.RestartPolicyOnFailure, AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
			Volumes: volumes, Containers: []corev1.Container{c},
		},
	}
	tellEnds(&pod.Spec)
	return pod
}

// sweeperContainer removes what is anybody's, and no more: it has root's right over files and no other.
func (b *builder) sweeperContainer(args []string, mounts []corev1.VolumeMount) corev1.Container {
	var root int64
	yes, no := true, false
	return corev1.Container{
		Name: "sweeper", Image: b.Settings.MillraceImage, ImagePullPolicy: corev1.PullIfNotPresent,
		Args: args, VolumeMounts: mounts,
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi"),
		}},
		SecurityContext: &corev1.SecurityContext{
			RunAsUser: &root, RunAsGroup: &root, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
			Capabilities: &corev1.Capabilities{
				Drop: []corev1.Capability{"ALL"},
				Add:  []corev1.Capability{"DAC_OVERRIDE", "FOWNER"},
			},
		},
	}
}
