package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MediumType is what a tier is made of.
// +kubebuilder:validation:Enum=MEM;SSD;HDD
type MediumType string

// The medium types.
const (
	// Memory is a tmpfs.
	Memory MediumType = "MEM"
	// SSD is a solid state disk.
	SSD MediumType = "SSD"
	// HDD is a hard disk.
	HDD MediumType = "HDD"
)

// VolumeType is where a tier's directory comes from.
// +kubebuilder:validation:Enum=hostPath;emptyDir
type VolumeType string

// The volume types.
const (
	// HostPath is a directory of the node. The node's agent reads it without a copy.
	HostPath VolumeType = "hostPath"
	// EmptyDir lives and dies with the worker's pod, and is read through the worker only.
	EmptyDir VolumeType = "emptyDir"
)

// VolumeSource configures the volume of a tier.
type VolumeSource struct {
	// The emptyDir of a tier with the volume type emptyDir.
	// +optional
	EmptyDir *corev1.EmptyDirVolumeSource `json:"emptyDir,omitempty"`
}

// Level is one tier of a worker's cache.
// +kubebuilder:validation:XValidation:rule="!has(self.quota) || quantity(string(self.quota)).isGreaterThan(quantity('0'))",message="a quota is above 0, such as 2Gi",fieldPath=".quota"
// +kubebuilder:validation:XValidation:rule="has(self.quota) || has(self.quotaList)",message="a tier needs a quota, such as 2Gi, or a quotaList",fieldPath=".quota"
// +kubebuilder:validation:XValidation:rule="!has(self.high) || !has(self.low) || double(self.high) >= double(self.low)",message="high must not be below low",fieldPath=".high"
type Level struct {
	// Not in Fluid's documents: another name for the tier. It has no effect.
	// +optional
	Alias string `json:"alias,omitempty"`
	// What the tier is made of: MEM, SSD or HDD. Each is there once, and the fastest is the first, in whatever order they are given.
	MediumType MediumType `json:"mediumtype"`
	// hostPath or emptyDir.
	// +kubebuilder:default=hostPath
	// +optional
	VolumeType VolumeType `json:"volumeType,omitempty"`
	// Settings of the volume.
	// +optional
	VolumeSource VolumeSource `json:"volumeSource,omitempty"`
	// Absolute path of the tier on the node, or several with commas between them. The data is in a directory of the Dataset below.
	// +kubebuilder:validation:Pattern=`^ */[^,]*(, */[^,]*)*$`
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	Path string `json:"path,omitempty"`
	// Size of the tier, shared equally by its paths.
	// +optional
	Quota *resource.Quantity `json:"quota,omitempty"`
	// Size for each path, with commas between them. It wins over quota.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	QuotaList string `json:"quotaList,omitempty"`
	// Part of the tier above which a worker makes room, such as "0.95".
	// +kubebuilder:validation:Pattern=`^(0(\.[0-9]+)?|1(\.0+)?)$`
	// +kubebuilder:validation:MaxLength=16
	// +optional
	High string `json:"high,omitempty"`
	// Part of the tier down to which it makes room, such as "0.7".
	// +kubebuilder:validation:Pattern=`^(0(\.[0-9]+)?|1(\.0+)?)$`
	// +kubebuilder:validation:MaxLength=16
	// +optional
	Low string `json:"low,omitempty"`
}

// TieredStore is the cache of each worker.
type TieredStore struct {
	// Tiers, the fastest first.
	// +kubebuilder:validation:MaxItems=3
	// +listType=atomic
	// +optional
	Levels []Level `json:"levels,omitempty"`
}

// Data says how data is kept.
type Data struct {
	// How many workers may have a copy of a block; 1 where it is not given.
	// +kubebuilder:validation:Minimum=1
	// +optional
	Replicas int32 `json:"replicas,omitempty"`
	// Keep what is cached from being evicted. Files that Alluxio knows already look changed once when it is set or taken away.
	// +optional
	Pin bool `json:"pin,omitempty"`
}

// RunAs is the user that Alluxio runs as.
type RunAs struct {
	// Number of the user.
	// +kubebuilder:validation:Minimum=0
	UID *int64 `json:"uid"`
	// Number of the group.
	// +kubebuilder:validation:Minimum=0
	GID *int64 `json:"gid"`
	// Name of the user.
	UserName string `json:"user"`
	// Not supported: only the number of the group counts.
	GroupName string `json:"group"`
}

// CleanCachePolicy bounds how a cache is emptied when its runtime is deleted.
type CleanCachePolicy struct {
	// Seconds that one attempt gets.
	// +kubebuilder:default=60
	// +kubebuilder:validation:Minimum=1
	// +optional
	GracePeriodSeconds *int32 `json:"gracePeriodSeconds,omitempty"`
	// Attempts.
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=0
	// +optional
	MaxRetryAttempts *int32 `json:"maxRetryAttempts,omitempty"`
}

// MetadataSyncPolicy says whether the sources' sizes are found out.
type MetadataSyncPolicy struct {
	// Read the sources' metadata once after each change of the mounts, which gives ufsTotal and fileNum.
	// +kubebuilder:default=true
	// +optional
	AutoSync *bool `json:"autoSync,omitempty"`
}

// RuntimeManagement holds policies.
type RuntimeManagement struct {
	// How the cache is emptied at the end.
	// +optional
	CleanCachePolicy CleanCachePolicy `json:"cleanCachePolicy,omitempty"`
	// How sizes are found out.
	// +optional
	MetadataSyncPolicy MetadataSyncPolicy `json:"metadataSyncPolicy,omitempty"`
}

// AlluxioRuntimeSpec says how Alluxio caches the Dataset of the same name.
// +kubebuilder:validation:XValidation:rule="(has(self.master) && has(self.master.replicas) ? self.master.replicas : 1) == (has(oldSelf.master) && has(oldSelf.master.replicas) ? oldSelf.master.replicas : 1)",message="the number of masters cannot change while they run: they share a journal; delete the runtime and create it again",fieldPath=".master.replicas"
// +kubebuilder:validation:XValidation:rule="(has(self.master) && has(self.master.journal)) == (has(oldSelf.master) && has(oldSelf.master.journal)) && (!has(self.master) || !has(self.master.journal) || self.master.journal == oldSelf.master.journal)",message="the journal cannot move; delete the runtime and create it again",fieldPath=".master.journal"
// +kubebuilder:validation:XValidation:rule="(has(self.master) && has(self.master.ports)) == (has(oldSelf.master) && has(oldSelf.master.ports)) && (!has(self.master) || !has(self.master.ports) || self.master.ports == oldSelf.master.ports)",message="the masters' ports cannot change: volumes that are mounted name them; delete the runtime and create it again",fieldPath=".master.ports"
// +kubebuilder:validation:XValidation:rule="(has(self.fuse) && has(self.fuse.nodeSelector)) == (has(oldSelf.fuse) && has(oldSelf.fuse.nodeSelector)) && (!has(self.fuse) || !has(self.fuse.nodeSelector) || self.fuse.nodeSelector == oldSelf.fuse.nodeSelector)",message="the nodes of a volume cannot change; delete the runtime and create it again",fieldPath=".fuse.nodeSelector"
// +kubebuilder:validation:XValidation:rule="!has(self.master) || !has(self.master.replicas) || self.master.replicas <= 9",message="at most 9 masters can share a journal",fieldPath=".master.replicas"
type AlluxioRuntimeSpec struct {
	// Image of Alluxio 2.9.x.
	// +optional
	AlluxioVersion VersionSpec `json:"alluxioVersion,omitempty"`
	// The masters: 1, 3 or 5.
	// +optional
	Master MasterSpec `json:"master,omitempty"`
	// The job master. It runs, beside each master, only where this or jobWorker is given.
	// +optional
	JobMaster ComponentSpec `json:"jobMaster,omitempty"`
	// The workers, all but their number, which is replicas.
	// +optional
	Worker ComponentSpec `json:"worker,omitempty"`
	// The job worker. It runs, beside each worker, only where this or jobMaster is given.
	// +optional
	JobWorker ComponentSpec `json:"jobWorker,omitempty"`
	// Not supported: Alluxio's REST proxy.
	// +optional
	APIGateway ComponentSpec `json:"apiGateway,omitempty"`
	// Not supported: makes users in Fluid's images.
	// +optional
	InitUsers InitUsersSpec `json:"initUsers,omitempty"`
	// What mounts the file system on nodes.
	// +optional
	Fuse FuseSpec `json:"fuse,omitempty"`
	// Properties of Alluxio.
	// +optional
	Properties map[string]string `json:"properties,omitempty"`
	// Options of all Java virtual machines.
	// +optional
	JvmOptions []string `json:"jvmOptions,omitempty"`
	// The cache of each worker.
	// +optional
	TieredStore TieredStore `json:"tieredstore,omitempty"`
	// How data is kept.
	// +optional
	Data Data `json:"data,omitempty"`
	// Number of workers. 0 keeps the metadata and caches nothing.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Replicas int32 `json:"replicas,omitempty"`
	// User that Alluxio runs as; the image's where it is not given.
	// +optional
	RunAs *RunAs `json:"runAs,omitempty"`
	// Take the label away by which Prometheus finds the masters.
	// +optional
	DisablePrometheus bool `json:"disablePrometheus,omitempty"`
	// ConfigMap with hdfs-site.xml and core-site.xml.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	HadoopConfig string `json:"hadoopConfig,omitempty"`
	// Volumes that components mount by their volumeMounts.
	// +listType=atomic
	// +optional
	Volumes []corev1.Volume `json:"volumes,omitempty"`
	// Labels and annotations of all pods.
	// +optional
	PodMetadata PodMetadata `json:"podMetadata,omitempty"`
	// Policies.
	// +optional
	Management RuntimeManagement `json:"management,omitempty"`
	// Secrets for pulling images.
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
}

// RuntimePhase is the state of a part of a runtime in a word.
// +kubebuilder:validation:Enum=NotReady;PartialReady;Ready;""
type RuntimePhase string

// The phases of a part of a runtime.
const (
	// NotReady has no pod that is ready.
	NotReady RuntimePhase = "NotReady"
	// PartialReady has some.
	PartialReady RuntimePhase = "PartialReady"
	// ReadyPhase has all, or none is asked for.
	ReadyPhase RuntimePhase = "Ready"
)

// APIGatewayStatus is how Alluxio's REST proxy is reached.
type APIGatewayStatus struct {
	// Address of the proxy.
	// +optional
	Endpoint string `json:"endpoint,omitempty"`
}

// AlluxioRuntimeStatus is what is known of a runtime.
type AlluxioRuntimeStatus struct {
	// The generation of the spec that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Name of the ConfigMap with Alluxio's properties.
	// +optional
	ValueFileConfigmap string `json:"valueFile"`
	// State of the masters.
	MasterPhase RuntimePhase `json:"masterPhase"`
	// Why the masters are not ready.
	// +optional
	MasterReason string `json:"masterReason,omitempty"`
	// State of the workers.
	WorkerPhase RuntimePhase `json:"workerPhase"`
	// Why the workers are not ready.
	// +optional
	WorkerReason string `json:"workerReason,omitempty"`
	// State of the mounts on nodes.
	FusePhase RuntimePhase `json:"fusePhase"`
	// Why the mounts are not ready.
	// +optional
	FuseReason string `json:"fuseReason,omitempty"`
	// Masters asked for.
	DesiredMasterNumberScheduled int32 `json:"desiredMasterNumberScheduled"`
	// Masters that there are.
	CurrentMasterNumberScheduled int32 `json:"currentMasterNumberScheduled"`
	// Masters that are ready.
	MasterNumberReady int32 `json:"masterNumberReady"`
	// Workers asked for.
	DesiredWorkerNumberScheduled int32 `json:"desiredWorkerNumberScheduled"`
	// Workers that there are.
	CurrentWorkerNumberScheduled int32 `json:"currentWorkerNumberScheduled"`
	// Workers that are ready.
	WorkerNumberReady int32 `json:"workerNumberReady"`
	// Workers that are available.
	// +optional
	WorkerNumberAvailable int32 `json:"workerNumberAvailable,omitempty"`
	// Workers that are not available.
	// +optional
	WorkerNumberUnavailable int32 `json:"workerNumberUnavailable,omitempty"`
	// Nodes that have pods which use the claim.
	DesiredFuseNumberScheduled int32 `json:"desiredFuseNumberScheduled"`
	// The same.
	CurrentFuseNumberScheduled int32 `json:"currentFuseNumberScheduled"`
	// Nodes on which such a pod runs, so that the claim is mounted.
	FuseNumberReady int32 `json:"fuseNumberReady"`
	// The same.
	// +optional
	FuseNumberAvailable int32 `json:"fuseNumberAvailable,omitempty"`
	// Nodes on which no such pod runs yet.
	// +optional
	FuseNumberUnavailable int32 `json:"fuseNumberUnavailable,omitempty"`
	// How long it took until the runtime served for the first time.
	// +optional
	SetupDuration string `json:"setupDuration,omitempty"`
	// What is known in detail.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []Condition `json:"conditions,omitempty"`
	// Numbers of the cache.
	// +optional
	CacheStates CacheStates `json:"cacheStates,omitempty"`
	// Selector of the workers' pods, for kubectl scale and autoscalers.
	// +optional
	Selector string `json:"selector,omitempty"`
	// How Alluxio's REST proxy is reached; not written.
	// +optional
	APIGatewayStatus *APIGatewayStatus `json:"apiGateway,omitempty"`
	// When the mounts were changed last.
	// +optional
	MountTime *metav1.Time `json:"mountTime,omitempty"`
	// The mounts that Alluxio has had since then.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Mounts []Mount `json:"mounts,omitempty"`
	// Nodes on which workers have, or had, tiers in directories of the node. Not part of Fluid's API.
	// +listType=set
	// +optional
	TierNodes []string `json:"tierNodes,omitempty"`
	// Not written.
	// +optional
	CacheAffinity *corev1.NodeAffinity `json:"cacheAffinity,omitempty"`
}

// AlluxioRuntime is an Alluxio that caches the Dataset of the same name and namespace.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.currentWorkerNumberScheduled,selectorpath=.status.selector
// +kubebuilder:resource:scope=Namespaced,categories={fluid},shortName=alluxio
// +kubebuilder:printcolumn:name="Ready Masters",type="integer",JSONPath=`.status.masterNumberReady`,priority=10
// +kubebuilder:printcolumn:name="Desired Masters",type="integer",JSONPath=`.status.desiredMasterNumberScheduled`,priority=10
// +kubebuilder:printcolumn:name="Master Phase",type="string",JSONPath=`.status.masterPhase`
// +kubebuilder:printcolumn:name="Ready Workers",type="integer",JSONPath=`.status.workerNumberReady`,priority=10
// +kubebuilder:printcolumn:name="Desired Workers",type="integer",JSONPath=`.status.desiredWorkerNumberScheduled`,priority=10
// +kubebuilder:printcolumn:name="Worker Phase",type="string",JSONPath=`.status.workerPhase`
// +kubebuilder:printcolumn:name="Ready Fuses",type="integer",JSONPath=`.status.fuseNumberReady`,priority=10
// +kubebuilder:printcolumn:name="Desired Fuses",type="integer",JSONPath=`.status.desiredFuseNumberScheduled`,priority=10
// +kubebuilder:printcolumn:name="Fuse Phase",type="string",JSONPath=`.status.fusePhase`
// +kubebuilder:printcolumn:name="API Gateway",type="string",JSONPath=`.status.apiGateway.endpoint`,priority=10
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 45",message="metadata.name must be a DNS label that begins with a letter and has at most 45 characters: Services and pods are named after it"
type AlluxioRuntime struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// How the Dataset is cached.
	// +optional
	Spec AlluxioRuntimeSpec `json:"spec,omitempty"`
	// What is known of it.
	// +optional
	Status AlluxioRuntimeStatus `json:"status,omitempty"`
}

// AlluxioRuntimeList is a list of AlluxioRuntimes.
// +kubebuilder:object:root=true
type AlluxioRuntimeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AlluxioRuntime `json:"items"`
}
