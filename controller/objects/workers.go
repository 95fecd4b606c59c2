package objects

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// workerSet runs the workers.
func (b *builder) workerSet() Object {
	part := &b.spec.Worker
	spec := b.podSpec(part, workerProperties, Registered)
	// The node's address says who is near, the pod's where to connect.
	identity := "-Dalluxio.worker.hostname=$(HOST_IP) -Dalluxio.worker.container.hostname=$(POD_IP)"
	c := b.container(workerContainer, []string{"worker-only", "--no-format"}, "ALLUXIO_WORKER_JAVA_OPTS", identity, part)
	c.Ports = []corev1.ContainerPort{containerPort("rpc", b.ports.workerRPC), containerPort("web", b.ports.workerWeb)}
	c.Resources = resources(part, memoryTier(b.tiers))
	volumes, mounts := b.tierVolumes()
	spec.Volumes = append(spec.Volumes, volumes...)
	c.VolumeMounts = append(c.VolumeMounts, mounts...)
	probes(&c, b.ports.workerRPC)
	spec.Containers = append(spec.Containers, c)
	b.addOwnership(&spec, c.Image, mounts)
	if b.jobs() {
		part := &b.spec.JobWorker
		j := b.container(jobWorkerContainer, []string{"job-worker"}, "ALLUXIO_JOB_WORKER_JAVA_OPTS", identity, part)
		j.Ports = []corev1.ContainerPort{
			containerPort("job-rpc", b.ports.jobWorkerRPC), containerPort("job-data", b.ports.jobWorkerData), containerPort("job-web", b.ports.jobWorkerWeb),
		}
		j.Resources = resources(part, 0)
		j.VolumeMounts = append(j.VolumeMounts, mounts...)
		spec.Containers = append(spec.Containers, j)
	}
	b.addGateways(&spec)
	spec.Affinity = b.workerAffinity()
	meta := b.podMeta(RoleWorker, part, b.workerProperties())
	meta.Labels[cacheNodeLabel] = cacheNodeValue(b.names)
	meta.Labels[placementLabel] = string(b.placement())
	return b.statefulSet(b.names.workers(), RoleWorker, max(b.spec.Replicas, b.Workers), corev1.PodTemplateSpec{ObjectMeta: meta, Spec: spec})
}

// cacheNodeValue names a Dataset in a label's value, which may not be as long as the names of a Dataset and its
// namespace are together.
func cacheNodeValue(n names) string {
	const longest = 63
	if value := n.namespace + "-" + n.name; len(value) <= longest {
		return value
	}
	return n.name + "-" + shortHash(n.namespace)
}

func (b *builder) placement() v1alpha1.PlacementMode {
	if b.Dataset.Spec.Placement == v1alpha1.Shared {
		return v1alpha1.Shared
	}
	return v1alpha1.Exclusive
}

// workerAffinity keeps two workers of a Dataset on different nodes, for they would share a directory, and the workers
// of other Datasets away where the placement is exclusive.
func (b *builder) workerAffinity() *corev1.Affinity {
	everywhere := &metav1.LabelSelector{}
	own := apart(PodLabels(b.names.name, RoleWorker))
	others := corev1.PodAffinityTerm{
		LabelSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: cacheNodeLabel, Operator: metav1.LabelSelectorOpExists}}},
		TopologyKey:   corev1.LabelHostname, NamespaceSelector: everywhere,
	}
	if b.placement() == v1alpha1.Shared {
		others.LabelSelector = &metav1.LabelSelector{MatchLabels: map[string]string{placementLabel: string(v1alpha1.Exclusive)}}
	}
	affinity := &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		// Nor where what an earlier worker left is being removed.
		RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{own, others, apart(map[string]string{SweepsLabel: b.names.name})},
	}}
	if a := b.Dataset.Spec.NodeAffinity; a != nil && a.Required != nil {
		affinity.NodeAffinity = &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: a.Required}
	}
	return affinity
}

// tierVolumes are the directories of the tiers, at the same path in the container as on the node.
func (b *builder) tierVolumes() ([]corev1.Volume, []corev1.VolumeMount) {
	var volumes []corev1.Volume
	var mounts []corev1.VolumeMount
	for i := range b.tiers {
		t := &b.tiers[i]
		for j, d := range t.dirs {
			name := fmt.Sprintf("tier-%d-%d", i, j)
			volumes = append(volumes, corev1.Volume{Name: name, VolumeSource: b.tierSource(t, d, i)})
			mounts = append(mounts, corev1.VolumeMount{Name: name, MountPath: d.path})
		}
	}
	return volumes, mounts
}

// addOwnership gives the directories on the node to a user who is not root.
func (b *builder) addOwnership(spec *corev1.PodSpec, image string, mounts []corev1.VolumeMount) {
	as := b.spec.RunAs
	if as == nil || len(mounts) == 0 {
		return
	}
	var root int64
	command := []string{"chown", fmt.Sprintf("%d:%d", *as.UID, *as.GID)}
	for _, m := range mounts {
		command = append(command, m.MountPath)
	}
	spec.InitContainers = append(spec.InitContainers, corev1.Container{
		Name: "tier-owner", Image: image, Command: command, VolumeMounts: mounts,
		SecurityContext: &corev1.SecurityContext{RunAsUser: &root, RunAsGroup: &root},
	})
}

func (b *builder) tierSource(t *tier, d tierDir, level int) corev1.VolumeSource {
	if !t.emptyDir {
		create := corev1.HostPathDirectoryOrCreate
		return corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: d.path, Type: &create}}
	}
	source := &corev1.EmptyDirVolumeSource{}
	if given := b.spec.TieredStore.Levels[level].VolumeSource.EmptyDir; given != nil {
		source = given.DeepCopy()
	}
	if t.medium == v1alpha1.Memory && source.Medium == "" {
		source.Medium = corev1.StorageMediumMemory
	}
	if source.SizeLimit == nil {
		// Room for what is written while old blocks are on their way out.
		source.SizeLimit = resource.NewQuantity(d.quota+d.quota/20, resource.BinarySI)
	}
	return corev1.VolumeSource{EmptyDir: source}
}
