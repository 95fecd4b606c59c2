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
	grace := workerGrace
	spec.TerminationGracePeriodSeconds = &grace
	// The node's address says what is near, the pod's where to connect.
	identity := "-Dalluxio.worker.hostname=$(HOST_IP) -Dalluxio.worker.container.hostname=$(POD_IP)"
	c := b.container(workerContainer, []string{"worker-only", "--no-format"}, "ALLUXIO_WORKER_JAVA_OPTS", identity,
		part)
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
			containerPort("job-rpc", b.ports.jobWorkerRPC), containerPort("job-data", b.ports.jobWorkerData),
			containerPort("job-web", b.ports.jobWorkerWeb),
		}
		j.Resources = resources(part, 0)
		j.VolumeMounts = append(j.VolumeMounts, mounts...)
		spec.Containers = append(spec.Containers, j)
	}
	b.addGateways(&spec, besideWorkers, part)
	spec.Affinity = b.workerAffinity()
	meta := b.podMeta(RoleWorker, part, b.workerProperties())
	meta.Labels[cacheNodeLabel] = cacheNodeValue(b.names)
	meta.Labels[placementLabel] = string(b.placement())
	meta.Labels[occupiesLabel] = b.occupies()
	return b.statefulSet(b.names.workers(), RoleWorker, max(b.spec.Replicas, b.Workers),
		corev1.PodTemplateSpec{ObjectMeta: meta, Spec: spec})
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

// occupies is what a worker takes of its node: the whole node, or the directories of its Dataset.
func (b *builder) occupies() string {
	if b.placement() == v1alpha1.Exclusive {
		return occupiesNode
	}
	return cacheNodeValue(b.names)
}

// workerAffinity keeps two workers of a Dataset on different nodes, for they would share a directory, a worker away
// from where what an earlier one left is being removed, and the workers of other Datasets away where the placement is
// exclusive. All of it is one term: the scheduler looks at a waiting pod again when a pod is gone that matches each of
// its terms. D-212 says more.
func (b *builder) workerAffinity() *corev1.Affinity {
	occupied := metav1.LabelSelectorRequirement{Key: occupiesLabel, Operator: metav1.LabelSelectorOpExists}
	if b.placement() == v1alpha1.Shared {
		occupied.Operator, occupied.Values = metav1.LabelSelectorOpIn, []string{occupiesNode, b.occupies()}
	}
	return &corev1.Affinity{
		NodeAffinity: b.datasetNodes(),
		PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			LabelSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{occupied}},
			TopologyKey:   corev1.LabelHostname, NamespaceSelector: &metav1.LabelSelector{},
		}}},
	}
}

// datasetNodes are the nodes that the Dataset is for, nil where it is for all.
func (b *builder) datasetNodes() *corev1.NodeAffinity {
	a := b.Dataset.Spec.NodeAffinity
	if a == nil || a.Required == nil {
		return nil
	}
	return &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: a.Required}
}

// tierVolumes are the directories of the tiers, at the same path in the container as on the node.
func (b *builder) tierVolumes() ([]corev1.Volume, []corev1.VolumeMount) {
	var volumes []corev1.Volume
	var mounts []corev1.VolumeMount
	for i := range b.tiers {
		t := &b.tiers[i]
		for j, d := range t.dirs {
			name := fmt.Sprintf("tier-%d-%d", i, j)
			volumes = append(volumes, corev1.Volume{Name: name, VolumeSource: tierSource(t, d)})
			mounts = append(mounts, corev1.VolumeMount{Name: name, MountPath: d.path})
		}
	}
	return volumes, mounts
}

// addOwnership gives the directories on the node to a user that is not root.
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

func tierSource(t *tier, d tierDir) corev1.VolumeSource {
	if !t.emptyDir {
		create := corev1.HostPathDirectoryOrCreate
		return corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: d.path, Type: &create}}
	}
	source := &corev1.EmptyDirVolumeSource{}
	if given := t.level.VolumeSource.EmptyDir; given != nil {
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
