package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// NetworkMode says whether pods are in their node's network or in one of their own.
// +kubebuilder:validation:Enum=HostNetwork;"";ContainerNetwork
type NetworkMode string

// The network modes.
const (
	// HostNetwork is the node's network: two Datasets with the same ports cannot share a node.
	HostNetwork NetworkMode = "HostNetwork"
	// ContainerNetwork is the pod's own network; "" means the same, unlike in Fluid.
	ContainerNetwork NetworkMode = "ContainerNetwork"
)

// PodMetadata is put on pods.
type PodMetadata struct {
	// Labels of the pods. Those that the controller selects pods by cannot be changed.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// Annotations of the pods.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// VersionSpec names an image.
type VersionSpec struct {
	// Image without its tag, such as alluxio/alluxio.
	// +optional
	Image string `json:"image,omitempty"`
	// Tag of the image.
	// +optional
	ImageTag string `json:"imageTag,omitempty"`
	// When to pull the image: Always, Never or IfNotPresent.
	// +kubebuilder:validation:Enum=Always;Never;IfNotPresent;""
	// +optional
	ImagePullPolicy string `json:"imagePullPolicy,omitempty"`
}

// ComponentSpec describes the pods or containers of one part of Alluxio.
type ComponentSpec struct {
	// Number of pods, at most 9 of masters. That of workers is the runtime's replicas.
	// +kubebuilder:validation:Minimum=1
	// +optional
	Replicas int32 `json:"replicas,omitempty"`
	// Options of the Java virtual machine, after those of the runtime.
	// +optional
	JvmOptions []string `json:"jvmOptions,omitempty"`
	// Properties of Alluxio for this part; they win over those of the runtime.
	// +optional
	Properties map[string]string `json:"properties,omitempty"`
	// Ports by name: rpc, web, embeddedJournal, data.
	// +optional
	Ports map[string]int `json:"ports,omitempty"`
	// Resources of the container. The size of a worker's memory tier is added to its request.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitempty"`
	// Environment variables. They show in the pod: secrets do not belong here.
	// +optional
	Env map[string]string `json:"env,omitempty"`
	// Whether the part runs; for the API gateway.
	// +optional
	Enabled bool `json:"enabled,omitempty"`
	// Labels of the nodes that may run the pods.
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// ContainerNetwork where it is empty.
	// +optional
	NetworkMode NetworkMode `json:"networkMode,omitempty"`
	// Where volumes of the runtime appear in the container.
	// +optional
	VolumeMounts []corev1.VolumeMount `json:"volumeMounts,omitempty"`
	// Labels and annotations of the pods.
	// +optional
	PodMetadata PodMetadata `json:"podMetadata,omitempty"`
	// Secrets for pulling images; they replace those of the runtime.
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
}

// JournalSpec says where the masters keep their journal. It is not part of Fluid's API.
// +kubebuilder:validation:XValidation:rule="!has(self.size) || quantity(string(self.size)).isGreaterThan(quantity('0'))",message="the size is above 0, such as 10Gi",fieldPath=".size"
type JournalSpec struct {
	// Storage class of the claim that each master gets for its journal. Without one the journal is in an emptyDir, and what
	// Alluxio knows is lost when all masters are.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	StorageClassName string `json:"storageClassName,omitempty"`
	// Size of the journal; 30Gi where it is not given.
	// +optional
	Size *resource.Quantity `json:"size,omitempty"`
}

// MasterSpec describes the masters.
type MasterSpec struct {
	ComponentSpec `json:",inline"`
	// Where the journal is kept. It cannot change.
	// +optional
	Journal *JournalSpec `json:"journal,omitempty"`
}

// InitUsersSpec describes a container that Fluid uses to make users.
type InitUsersSpec struct {
	VersionSpec `json:",inline"`
	// Environment variables.
	// +optional
	Env map[string]string `json:"env,omitempty"`
	// Resources of the container.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitempty"`
}

// FuseSpec describes what Fluid runs on nodes to mount the file system. The node's agent does that here, for all Datasets.
type FuseSpec struct {
	VersionSpec `json:",inline"`
	// Not supported: there is no FUSE pod to pull an image for.
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
	// Not supported: there is no Java in the read path.
	// +optional
	JvmOptions []string `json:"jvmOptions,omitempty"`
	// Not supported: Alluxio's own client is not in the read path.
	// +optional
	Properties map[string]string `json:"properties,omitempty"`
	// Not supported: there is no FUSE pod.
	// +optional
	Env map[string]string `json:"env,omitempty"`
	// Not supported: the agent's resources are those of its DaemonSet.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitempty"`
	// Not supported: options of Alluxio's FUSE program.
	// +optional
	Args []string `json:"args,omitempty"`
	// Labels of the nodes whose pods may use the claim. It cannot change.
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// When a node's mount ends. It ends with the last pod on the node that uses the claim, which is OnDemand; the others have no effect.
	// +kubebuilder:validation:Enum=OnDemand;OnRuntimeDeleted;OnFuseChanged;""
	// +optional
	CleanPolicy string `json:"cleanPolicy,omitempty"`
	// Not supported: there is no FUSE pod.
	// +optional
	NetworkMode NetworkMode `json:"networkMode,omitempty"`
	// Not supported: there is no FUSE pod.
	// +optional
	VolumeMounts []corev1.VolumeMount `json:"volumeMounts,omitempty"`
	// Not supported: there is no FUSE pod.
	// +optional
	PodMetadata PodMetadata `json:"podMetadata,omitempty"`
}
