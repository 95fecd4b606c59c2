package objects

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// jobs reports whether job masters and job workers are asked for.
func (b *builder) jobs() bool {
	return !isZero(&b.spec.JobMaster) || !isZero(&b.spec.JobWorker)
}

// podMeta has the labels by which pods are found, whatever the user's labels say.
func (b *builder) podMeta(role string, part *v1alpha1.ComponentSpec, config string) metav1.ObjectMeta {
	labels, annotations := map[string]string{}, map[string]string{}
	for _, m := range []v1alpha1.PodMetadata{b.spec.PodMetadata, part.PodMetadata} {
		maps.Copy(labels, m.Labels)
		maps.Copy(annotations, m.Annotations)
	}
	maps.Copy(labels, PodLabels(b.names.name, role))
	labels[ManagedByLabel] = ManagedBy
	sum := sha256.Sum256([]byte(config))
	annotations[ConfigHash] = hex.EncodeToString(sum[:8])
	return metav1.ObjectMeta{Labels: labels, Annotations: annotations}
}

// How long pods may take to end, in seconds. A worker whose masters are gone already would wait for them for ever, and
// has nothing to save: its blocks are where they are.
const (
	masterGrace int64 = 30
	workerGrace int64 = 15
)

// podSpec is what the pods of masters and workers have in common.
func (b *builder) podSpec(part *v1alpha1.ComponentSpec, configKey string, gate corev1.PodConditionType) corev1.PodSpec {
	no := false
	grace := masterGrace
	spec := corev1.PodSpec{
		TerminationGracePeriodSeconds: &grace,
		AutomountServiceAccountToken:  &no,
		EnableServiceLinks:            &no,
		NodeSelector:                  part.NodeSelector,
		Tolerations:                   b.Dataset.Spec.Tolerations,
		ImagePullSecrets:              b.spec.ImagePullSecrets,
		ReadinessGates:                []corev1.PodReadinessGate{{ConditionType: gate}},
		SecurityContext:               &corev1.PodSecurityContext{},
		DNSPolicy:                     corev1.DNSClusterFirst,
		Volumes: append([]corev1.Volume{{
			Name: "config",
			VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: b.names.config()},
				Items:                []corev1.KeyToPath{{Key: configKey, Path: configFile}},
			}},
		}, {
			Name: "root", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
		}}, b.userVolumes(part)...),
	}
	if len(part.ImagePullSecrets) > 0 {
		spec.ImagePullSecrets = part.ImagePullSecrets
	}
	if part.NetworkMode == v1alpha1.HostNetwork {
		spec.HostNetwork = true
		spec.DNSPolicy = corev1.DNSClusterFirstWithHostNet
	}
	b.runAs(spec.SecurityContext)
	if b.spec.HadoopConfig != "" {
		spec.Volumes = append(spec.Volumes, corev1.Volume{
			Name: "hdfs",
			VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: b.spec.HadoopConfig},
			}},
		})
	}
	spec.Volumes = append(spec.Volumes, b.sourceVolumes()...)
	return spec
}

// runAs says whom the pods run as: root where nothing is said, for the tiers' directories on nodes are root's.
func (b *builder) runAs(context *corev1.PodSecurityContext) {
	var root int64
	context.RunAsUser, context.RunAsGroup = &root, &root
	if as := b.spec.RunAs; as != nil {
		context.RunAsUser, context.RunAsGroup, context.FSGroup = as.UID, as.GID, as.GID
	} else if b.serving() {
		// The files of a Secret are given to the pod's group, and gateways are not root.
		group := gatewayUser
		context.FSGroup = &group
	}
}

// userVolumes are the volumes of the runtime that a part mounts.
func (b *builder) userVolumes(part *v1alpha1.ComponentSpec) []corev1.Volume {
	mounts := part.VolumeMounts
	switch part {
	case &b.spec.Master.ComponentSpec:
		mounts = slices.Concat(mounts, b.spec.JobMaster.VolumeMounts)
	case &b.spec.Worker:
		mounts = slices.Concat(mounts, b.spec.JobWorker.VolumeMounts)
	}
	var used []corev1.Volume
	for _, v := range b.spec.Volumes {
		if slices.ContainsFunc(mounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name }) {
			used = append(used, v)
		}
	}
	return used
}

// sourceVolumes are the sources that are directories of the node or of a claim.
func (b *builder) sourceVolumes() []corev1.Volume {
	var volumes []corev1.Volume
	claims := map[string]int{}
	for i := range b.mounts {
		m := &b.mounts[i]
		_, rest, _ := strings.Cut(m.source, "://")
		switch m.kind {
		case onNode:
			directory := corev1.HostPathDirectory
			volumes = append(volumes, corev1.Volume{Name: m.volume(), VolumeSource: corev1.VolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: path.Clean(rest), Type: &directory},
			}})
		case inClaim:
			// kubelet waits for ever for a pod that names a claim twice.
			claim, _, _ := strings.Cut(rest, "/")
			if j, known := claims[claim]; known {
				of := volumes[j].PersistentVolumeClaim
				of.ReadOnly = of.ReadOnly && m.readOnly
				continue
			}
			claims[claim] = len(volumes)
			volumes = append(volumes, corev1.Volume{Name: m.volume(), VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{
					ClaimName: claim,
					ReadOnly:  m.readOnly,
				},
			}})
		}
	}
	return volumes
}

// volume is the name of the pods' volume with a source of a node or of a claim.
func (m *mount) volume() string {
	if m.kind != inClaim {
		return "source-" + m.id
	}
	_, rest, _ := strings.Cut(m.source, "://")
	claim, _, _ := strings.Cut(rest, "/")
	return "claim-" + shortHash(claim)
}

// container is one of Alluxio's. variable is the environment variable with the options of its virtual machine, identity
// are those options that differ from pod to pod.
func (b *builder) container(
	name string, args []string, variable, identity string, part *v1alpha1.ComponentSpec,
) corev1.Container {
	options := slices.Concat(strings.Fields(identity), heap(name, part, b.tiers), b.spec.JvmOptions, part.JvmOptions)
	c := corev1.Container{
		Name: name, Image: image(b.spec.AlluxioVersion, b.Settings.AlluxioImage),
		ImagePullPolicy: corev1.PullPolicy(b.spec.AlluxioVersion.ImagePullPolicy),
		Args:            args,
		Env: []corev1.EnvVar{
			fieldVariable("POD_NAME", "metadata.name"), fieldVariable("POD_IP", "status.podIP"),
			fieldVariable("HOST_IP", "status.hostIP"),
			{Name: variable, Value: strings.Join(options, " ")},
		},
		VolumeMounts: []corev1.VolumeMount{
			{Name: "config", MountPath: configDir, ReadOnly: true}, {Name: "root", MountPath: rootDir},
		},
	}
	if c.ImagePullPolicy == "" {
		c.ImagePullPolicy = corev1.PullIfNotPresent
	}
	env := part.Env
	if b.serving() {
		env = besideGateways(env)
	}
	for _, key := range slices.Sorted(maps.Keys(env)) {
		c.Env = append(c.Env, corev1.EnvVar{Name: key, Value: env[key]})
	}
	if b.spec.HadoopConfig != "" {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "hdfs", MountPath: hdfsDir, ReadOnly: true})
	}
	for i := range b.mounts {
		m := &b.mounts[i]
		if m.kind != onNode && m.kind != inClaim {
			continue
		}
		at := corev1.VolumeMount{Name: m.volume(), MountPath: m.inContainer(), ReadOnly: m.readOnly}
		if m.kind == inClaim {
			_, rest, _ := strings.Cut(m.source, "://")
			_, at.SubPath, _ = strings.Cut(strings.TrimRight(rest, "/"), "/")
		}
		c.VolumeMounts = append(c.VolumeMounts, at)
	}
	c.VolumeMounts = append(c.VolumeMounts, part.VolumeMounts...)
	return c
}

func fieldVariable(name, field string) corev1.EnvVar {
	return corev1.EnvVar{
		Name:      name,
		ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: field}},
	}
}

func image(v v1alpha1.VersionSpec, standard string) string {
	name, tag, _ := cutTag(standard)
	if v.Image != "" {
		name = v.Image
	}
	if v.ImageTag != "" {
		tag = v.ImageTag
	}
	if tag == "" {
		return name
	}
	return name + ":" + tag
}

// cutTag cuts an image into its name and its tag. The colon of a registry's port begins no tag.
func cutTag(image string) (name, tag string, found bool) {
	i := strings.LastIndex(image, ":")
	if i < 0 || strings.Contains(image[i:], "/") {
		return image, "", false
	}
	return image[:i], image[i+1:], true
}

// open probes whether a server listens.
func open(port int32, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(port)}},
		PeriodSeconds: period, FailureThreshold: failures, TimeoutSeconds: 3,
	}
}

// probes of one of Alluxio's servers. What they cannot see, such as a master's role in the raft group, is a
// condition of the pod.
func probes(c *corev1.Container, port int32) {
	c.StartupProbe = open(port, 2, 90)
	c.LivenessProbe = open(port, 10, 6)
	c.ReadinessProbe = open(port, 5, 2)
}

// apart keeps pods with these labels on different nodes.
func apart(labels map[string]string) corev1.PodAffinityTerm {
	return corev1.PodAffinityTerm{
		LabelSelector: &metav1.LabelSelector{MatchLabels: labels}, TopologyKey: corev1.LabelHostname,
	}
}

// The memory of a virtual machine where the user says nothing, and what it needs beside its heap.
var (
	standardHeap   = resource.MustParse("1Gi")
	standardDirect = resource.MustParse("512Mi")
	besideHeap     = resource.MustParse("256Mi")
	standardCPU    = resource.MustParse("100m")
)

// heap are the options for the size of a virtual machine: what a limit leaves, else the standard. The user's own
// options come later and win.
func heap(container string, part *v1alpha1.ComponentSpec, tiers []tier) []string {
	size, direct := standardHeap.Value(), standardDirect.Value()
	if limit, ok := part.Resources.Limits[corev1.ResourceMemory]; ok {
		free := limit.Value()
		if container == workerContainer {
			free -= memoryTier(tiers)
		}
		size, direct = free/2, free/4
	}
	return []string{
		fmt.Sprintf("-Xmx%dm", max(size>>20, 64)),
		fmt.Sprintf("-XX:MaxDirectMemorySize=%dm", max(direct>>20, 64)),
	}
}

// resources are the user's, with a request for memory that counts the tiers that are memory.
func resources(part *v1alpha1.ComponentSpec, tiersInMemory int64) corev1.ResourceRequirements {
	r := *part.Resources.DeepCopy()
	if r.Requests == nil {
		r.Requests = corev1.ResourceList{}
	}
	if _, ok := r.Requests[corev1.ResourceCPU]; !ok {
		if limit, ok := r.Limits[corev1.ResourceCPU]; !ok || limit.Cmp(standardCPU) >= 0 {
			r.Requests[corev1.ResourceCPU] = standardCPU
		}
	}
	memory, given := r.Requests[corev1.ResourceMemory]
	limit, limited := r.Limits[corev1.ResourceMemory]
	switch {
	case given && memory.Value() >= tiersInMemory+besideHeap.Value():
		// It counts them already.
	case given:
		memory.Add(*resource.NewQuantity(tiersInMemory, resource.BinarySI))
	case limited:
		memory = limit.DeepCopy()
	default:
		memory = standardHeap.DeepCopy()
		memory.Add(besideHeap)
		memory.Add(*resource.NewQuantity(tiersInMemory, resource.BinarySI))
	}
	if limited && memory.Cmp(limit) > 0 {
		memory = limit.DeepCopy()
	}
	r.Requests[corev1.ResourceMemory] = memory
	return r
}
