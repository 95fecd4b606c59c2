package objects

import (
	"fmt"
	"path"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RoleSweeper is the role of pods that remove the directories of tiers from a node.
const RoleSweeper = "alluxio-sweeper"

// SweeperName is the name of a Dataset's sweeper on a node.
func SweeperName(dataset, node string) string { return dataset + "-sweeper-" + shortHash(node) }

// Sweeper returns a pod that removes from a node what workers left there, nil where the tiers are the pods' own. It
// runs the image that the node has already. A runtime whose tiers cannot be read has none.
func Sweeper(in Input, node string) *corev1.Pod {
	b := &builder{Input: in, spec: &in.Runtime.Spec, names: names{in.Runtime.Namespace, in.Runtime.Name}}
	var problems []Problem
	if b.tiers, problems = resolveTiers(b.names, b.spec); len(problems) > 0 {
		return nil
	}
	var volumes []corev1.Volume
	var mounts []corev1.VolumeMount
	// The directory is DIR/NAMESPACE/NAME; DIR/NAMESPACE goes too, if nothing else is in it.
	remove, tidy := []string{"rm", "-rf", "--one-file-system", "--"}, []string{"rmdir", "--ignore-fail-on-non-empty", "--"}
	for i := range b.tiers {
		for j, d := range b.tiers[i].dirs {
			if b.tiers[i].emptyDir {
				continue
			}
			kind := corev1.HostPathDirectoryOrCreate
			name, at := fmt.Sprintf("tier-%d-%d", i, j), fmt.Sprintf("/sweep/%d-%d", i, j)
			volumes = append(volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: path.Dir(path.Dir(d.path)), Type: &kind},
			}})
			mounts = append(mounts, corev1.VolumeMount{Name: name, MountPath: at})
			remove, tidy = append(remove, path.Join(at, b.names.namespace, b.names.name)), append(tidy, path.Join(at, b.names.namespace))
		}
	}
	if len(volumes) == 0 {
		return nil
	}
	return b.sweeper(node, volumes, b.sweeperContainer("blocks", remove, mounts), b.sweeperContainer("directories", tidy, mounts))
}

func (b *builder) sweeper(node string, volumes []corev1.Volume, first, then corev1.Container) *corev1.Pod {
	no := false
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: b.meta(SweeperName(b.names.name, node)),
		Spec: corev1.PodSpec{
			NodeName: node, Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			RestartPolicy: corev1.RestartPolicyOnFailure, AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
			ImagePullSecrets: b.spec.ImagePullSecrets, Volumes: volumes,
			InitContainers: []corev1.Container{first}, Containers: []corev1.Container{then},
		},
	}
	b.own([]Object{pod})
	tellEnds(&pod.Spec)
	pod.Labels[SweepsLabel], pod.Labels[roleLabel] = b.names.name, RoleSweeper
	pod.Labels[occupiesLabel] = cacheNodeValue(b.names)
	return pod
}

func (b *builder) sweeperContainer(name string, command []string, mounts []corev1.VolumeMount) corev1.Container {
	var root int64
	yes, no := true, false
	return corev1.Container{
		Name: name, Image: image(b.spec.AlluxioVersion, b.Settings.AlluxioImage), ImagePullPolicy: corev1.PullIfNotPresent,
		Command: command, VolumeMounts: mounts,
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi"),
		}},
		SecurityContext: &corev1.SecurityContext{RunAsUser: &root, RunAsGroup: &root, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes},
	}
}
