package objects

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// The names of Alluxio's containers.
const (
	masterContainer    = "alluxio-master"
	jobMasterContainer = "alluxio-job-master"
	workerContainer    = "alluxio-worker"
	jobWorkerContainer = "alluxio-job-worker"
)

// standardJournal is the size of a master's journal where none is given.
var standardJournal = resource.MustParse("30Gi")

// masterSet runs the masters. The controller replaces their pods itself, the leader last.
func (b *builder) masterSet() Object {
	part := &b.spec.Master.ComponentSpec
	spec := b.podSpec(part, masterProperties, RaftRole)
	c := b.container(masterContainer, []string{"master-only", "--no-format"}, "ALLUXIO_MASTER_JAVA_OPTS",
		"-Dalluxio.master.hostname=$(POD_NAME)", part)
	c.Ports = []corev1.ContainerPort{
		containerPort("rpc", b.ports.masterRPC), containerPort("web", b.ports.masterWeb),
		containerPort("journal", b.ports.masterJournal),
	}
	c.Resources = resources(part, 0)
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "journal", MountPath: journalDir})
	probes(&c, b.ports.masterRPC)
	spec.Containers = append(spec.Containers, c)
	if b.jobs() {
		part := &b.spec.JobMaster
		j := b.container(jobMasterContainer, []string{"job-master"}, "ALLUXIO_JOB_MASTER_JAVA_OPTS",
			"-Dalluxio.job.master.hostname=$(POD_NAME)", part)
		j.Ports = []corev1.ContainerPort{
			containerPort("job-rpc", b.ports.jobMasterRPC),
			containerPort("job-web", b.ports.jobMasterWeb),
		}
		j.Resources = resources(part, 0)
		j.VolumeMounts = append(j.VolumeMounts, corev1.VolumeMount{Name: "journal", MountPath: journalDir})
		spec.Containers = append(spec.Containers, j)
	}
	b.addGateways(&spec, besideMasters, part)
	// Preferred: three masters on two nodes are better than two masters.
	spec.Affinity = &corev1.Affinity{NodeAffinity: b.masterNodes(), PodAntiAffinity: &corev1.PodAntiAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{
			{Weight: 100, PodAffinityTerm: apart(PodLabels(b.names.name, RoleMaster))},
		},
	}}
	set := b.statefulSet(b.names.masters(), RoleMaster, int32(masterCount(b.spec)),
		corev1.PodTemplateSpec{ObjectMeta: b.podMeta(RoleMaster, part, b.masterProperties()), Spec: spec})
	b.addJournal(set)
	return set
}

// masterNodes are the nodes that masters may be on. Where a source is a directory of nodes, those are the Dataset's: a
// master reads the source, too.
func (b *builder) masterNodes() *corev1.NodeAffinity {
	if !slices.ContainsFunc(b.mounts, func(m mount) bool { return m.kind == onNode }) {
		return nil
	}
	return b.datasetNodes()
}

// addJournal gives each master a place for its journal.
func (b *builder) addJournal(set *appsv1.StatefulSet) {
	size := standardJournal
	journal := b.spec.Master.Journal
	if journal != nil && journal.Size != nil {
		size = *journal.Size
	}
	if !PersistentJournal(b.spec) {
		set.Spec.Template.Spec.Volumes = append(set.Spec.Template.Spec.Volumes, corev1.Volume{
			Name:         "journal",
			VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &size}},
		})
		return
	}
	set.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: metav1.ObjectMeta{Name: "journal", Labels: PodLabels(b.names.name, RoleMaster)},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			StorageClassName: &journal.StorageClassName,
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: size}},
		},
	}}
	set.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
		WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType,
		WhenScaled:  appsv1.RetainPersistentVolumeClaimRetentionPolicyType,
	}
}

// PersistentJournal reports whether the masters' journal outlives all of them.
func PersistentJournal(spec *v1alpha1.AlluxioRuntimeSpec) bool {
	return spec.Master.Journal != nil && spec.Master.Journal.StorageClassName != ""
}

// statefulSet has the pods of a role.
func (b *builder) statefulSet(name, role string, replicas int32, template corev1.PodTemplateSpec) *appsv1.StatefulSet {
	var revisions int32 = 3
	meta := b.meta(name)
	meta.Labels = PodLabels(b.names.name, role)
	tellEnds(&template.Spec)
	return &appsv1.StatefulSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"},
		ObjectMeta: meta,
		Spec: appsv1.StatefulSetSpec{
			ServiceName:          name,
			Replicas:             &replicas,
			Selector:             &metav1.LabelSelector{MatchLabels: PodLabels(b.names.name, role)},
			Template:             template,
			PodManagementPolicy:  appsv1.ParallelPodManagement,
			UpdateStrategy:       appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType},
			RevisionHistoryLimit: &revisions,
		},
	}
}

// tellEnds has kubelet write the last lines of a container's log into the pod's status when it fails, where the
// controller reads them.
func tellEnds(spec *corev1.PodSpec) {
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			containers[i].TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
		}
	}
}

func containerPort(name string, port int32) corev1.ContainerPort {
	return corev1.ContainerPort{Name: name, ContainerPort: port, Protocol: corev1.ProtocolTCP}
}
