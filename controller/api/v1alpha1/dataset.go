package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PlacementMode says whether workers of several Datasets may share a node.
// +kubebuilder:validation:Enum=Exclusive;"";Shared
type PlacementMode string

// The placement modes.
const (
	// Exclusive keeps a node for the workers of one Dataset; "" means the same.
	Exclusive PlacementMode = "Exclusive"
	// Shared lets workers of several Datasets run on a node.
	Shared PlacementMode = "Shared"
)

// Mount is a place where data is, and where it appears.
// +kubebuilder:validation:XValidation:rule="self.mountPoint.matches('^(local:///.+|[a-zA-Z][a-zA-Z0-9+.-]*://[^/].*)$')",message="a mount point is SCHEME://HOST/PATH, such as https://host/path/ or s3://bucket/prefix, or local:///DIRECTORY; this one has no host",fieldPath=".mountPoint"
// +kubebuilder:validation:XValidation:rule="!has(self.path) || size(self.path) == 0 || self.path.startsWith('/')",message="a path is absolute in the Dataset, such as /data",fieldPath=".path"
type Mount struct {
	// Where the data is: https://host/path/, s3://bucket/prefix, hdfs://host:port/path and what else Alluxio reads,
	// local:///directory of the nodes, or pvc://claim/directory of the namespace.
	// +kubebuilder:validation:MinLength=5
	// +kubebuilder:validation:MaxLength=4096
	MountPoint string `json:"mountPoint"`
	// Name of the mount, and of its directory in the Dataset where no path is given.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Name string `json:"name,omitempty"`
	// Path of the mount in the Dataset; /NAME where it is not given.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Path string `json:"path,omitempty"`
	// Options of the source, by the names that Alluxio or the gateway knows. They win over sharedOptions.
	// +optional
	Options map[string]string `json:"options,omitempty"`
	// Options of the source whose values are in Secrets.
	// +kubebuilder:validation:MaxItems=64
	// +optional
	EncryptOptions []EncryptOption `json:"encryptOptions,omitempty"`
	// Refuse every change of the source. Sources behind a gateway (http, https) are always read-only.
	// +optional
	ReadOnly bool `json:"readOnly,omitempty"`
	// Let every user of Alluxio read the mount.
	// +optional
	Shared bool `json:"shared,omitempty"`
}

// User is whom the files of a Dataset belong to.
type User struct {
	// Number of the user.
	// +kubebuilder:validation:Minimum=0
	UID *int64 `json:"uid"`
	// Number of the group.
	// +kubebuilder:validation:Minimum=0
	GID *int64 `json:"gid"`
	// Name of the user. Only numbers are shown to pods; the name has no effect.
	// +optional
	UserName string `json:"user,omitempty"`
	// Name of the group. Only numbers are shown to pods; the name has no effect.
	// +optional
	GroupName string `json:"group,omitempty"`
}

// CacheableNodeAffinity says on which nodes data may be cached.
type CacheableNodeAffinity struct {
	// Nodes that may run workers.
	// +optional
	Required *corev1.NodeSelector `json:"required,omitempty"`
}

// Runtime names what accelerates a Dataset.
type Runtime struct {
	// Name of the runtime.
	// +optional
	Name string `json:"name,omitempty"`
	// Namespace of the runtime.
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// Category of the runtime; always Accelerate.
	// +optional
	Category string `json:"category,omitempty"`
	// Type of the runtime; always alluxio.
	// +optional
	Type string `json:"type,omitempty"`
	// Number of masters.
	// +optional
	MasterReplicas int32 `json:"masterReplicas,omitempty"`
}

// DataRestoreLocation is where a backup of the metadata is.
type DataRestoreLocation struct {
	// Path of the backup.
	// +optional
	Path string `json:"path,omitempty"`
	// Node that has it.
	// +optional
	NodeName string `json:"nodeName,omitempty"`
}

// DatasetSpec says where data is and how pods see it.
// +kubebuilder:validation:XValidation:rule="!has(self.mounts) || self.mounts.all(m, self.mounts.exists_one(n, (has(n.path) && size(n.path) > 0 ? n.path : (has(n.name) ? '/' + n.name : '/')) == (has(m.path) && size(m.path) > 0 ? m.path : (has(m.name) ? '/' + m.name : '/'))))",message="two mounts have the same path; give each a name or a path of its own",fieldPath=".mounts"
// +kubebuilder:validation:XValidation:rule="has(self.accessModes) == has(oldSelf.accessModes) && (!has(self.accessModes) || self.accessModes == oldSelf.accessModes)",message="accessModes cannot change: a claim keeps its modes for life; delete the Dataset and create it again",fieldPath=".accessModes"
// +kubebuilder:validation:XValidation:rule="has(self.owner) == has(oldSelf.owner) && (!has(self.owner) || self.owner.uid == oldSelf.owner.uid && self.owner.gid == oldSelf.owner.gid)",message="owner cannot change while the claim is there; delete the Dataset and create it again",fieldPath=".owner"
// +kubebuilder:validation:XValidation:rule="(has(self.mounts) && self.mounts.exists(m, has(m.path) && size(m.path) > 0 ? m.path == '/' : !has(m.name) || size(m.name) == 0)) == (has(oldSelf.mounts) && oldSelf.mounts.exists(m, has(m.path) && size(m.path) > 0 ? m.path == '/' : !has(m.name) || size(m.name) == 0))",message="a mount of the root / cannot be added or removed while the volume is there: it names the directory that pods see; delete the Dataset and create it again",fieldPath=".mounts"
type DatasetSpec struct {
	// Where the data is; with no mounts the claim is empty until there are some.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Mounts []Mount `json:"mounts,omitempty"`
	// Whom the files belong to, as pods see them.
	// +optional
	Owner *User `json:"owner,omitempty"`
	// Nodes that may cache the data.
	// +optional
	NodeAffinity *CacheableNodeAffinity `json:"nodeAffinity,omitempty"`
	// Taints that masters and workers tolerate.
	// +optional
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// Modes of the volume; ReadWriteMany where none is given. It cannot change.
	// +kubebuilder:validation:MaxItems=4
	// +listType=atomic
	// +optional
	AccessModes []corev1.PersistentVolumeAccessMode `json:"accessModes,omitempty"`
	// Not supported: a Dataset is bound to the AlluxioRuntime of its own name.
	// +optional
	Runtimes []Runtime `json:"runtimes,omitempty"`
	// Whether workers of other Datasets may run on the same nodes; Exclusive where it is empty.
	// +optional
	Placement PlacementMode `json:"placement,omitempty"`
	// Not supported: a backup of the metadata to start from.
	// +optional
	DataRestoreLocation *DataRestoreLocation `json:"dataRestoreLocation,omitempty"`
	// Options of all mounts.
	// +optional
	SharedOptions map[string]string `json:"sharedOptions,omitempty"`
	// Options of all mounts whose values are in Secrets.
	// +kubebuilder:validation:MaxItems=64
	// +optional
	SharedEncryptOptions []EncryptOption `json:"sharedEncryptOptions,omitempty"`
}

// DatasetPhase is the state of a Dataset in a word.
// +kubebuilder:validation:Enum=Pending;Bound;Failed;NotBound;Updating;DataMigrating;""
type DatasetPhase string

// The phases of a Dataset.
const (
	// NotBound has no runtime that serves it yet.
	NotBound DatasetPhase = "NotBound"
	// Bound is served by its runtime.
	Bound DatasetPhase = "Bound"
	// Updating is served, while its mounts change.
	Updating DatasetPhase = "Updating"
	// FailedPhase is not served, or not to be served; conditions say why.
	FailedPhase DatasetPhase = "Failed"
)

// HCFSStatus is how Hadoop's clients reach the data.
type HCFSStatus struct {
	// URL of the file system.
	// +optional
	Endpoint string `json:"endpoint,omitempty"`
	// Version of the under store's protocol; not written.
	// +optional
	UnderlayerFileSystemVersion string `json:"underlayerFileSystemVersion,omitempty"`
}

// CacheStates are numbers of the cache by their names: cached, cacheCapacity, cachedPercentage; and of what was read since the leading
// master began, cacheHitRatio, which is the sum of localHitRatio and remoteHitRatio, and the same of the throughput. Ratios are there once
// something was read.
type CacheStates map[string]string

// The names in CacheStates.
const (
	Cached           = "cached"
	CacheCapacity    = "cacheCapacity"
	CachedPercentage = "cachedPercentage"

	CacheHitRatio  = "cacheHitRatio"
	LocalHitRatio  = "localHitRatio"
	RemoteHitRatio = "remoteHitRatio"

	CacheThroughputRatio  = "cacheThroughputRatio"
	LocalThroughputRatio  = "localThroughputRatio"
	RemoteThroughputRatio = "remoteThroughputRatio"
)

// DatasetStatus is what is known of a Dataset.
type DatasetStatus struct {
	// The generation of the spec that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// The mounts that Alluxio has.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Mounts []Mount `json:"mounts,omitempty"`
	// Bytes of all files at the sources, such as 550.12MiB.
	// +optional
	UfsTotal string `json:"ufsTotal,omitempty"`
	// The state in a word.
	// +optional
	Phase DatasetPhase `json:"phase,omitempty"`
	// The runtime that serves the Dataset.
	// +listType=atomic
	// +optional
	Runtimes []Runtime `json:"runtimes,omitempty"`
	// What is known in detail.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []Condition `json:"conditions,omitempty"`
	// Numbers of the cache.
	// +optional
	CacheStates CacheStates `json:"cacheStates,omitempty"`
	// How Hadoop's clients reach the data.
	// +optional
	HCFSStatus *HCFSStatus `json:"hcfs,omitempty"`
	// Number of files at the sources, as far as they are known.
	// +optional
	FileNum string `json:"fileNum,omitempty"`
	// Not written.
	// +optional
	DataLoadRef string `json:"dataLoadRef,omitempty"`
	// Not written.
	// +optional
	DataBackupRef string `json:"dataBackupRef,omitempty"`
	// Names of the operations under way, by kind.
	// +optional
	OperationRef map[string]string `json:"operationRef,omitempty"`
	// Not written.
	// +optional
	DatasetRef []string `json:"datasetRef,omitempty"`
}

// Dataset is data at a remote place that pods read through a claim of the Dataset's name.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,categories={fluid},shortName=dataset
// +kubebuilder:printcolumn:name="Ufs Total Size",type="string",JSONPath=`.status.ufsTotal`
// +kubebuilder:printcolumn:name="Cached",type="string",JSONPath=`.status.cacheStates.cached`
// +kubebuilder:printcolumn:name="Cache Capacity",type="string",JSONPath=`.status.cacheStates.cacheCapacity`
// +kubebuilder:printcolumn:name="Cached Percentage",type="string",JSONPath=`.status.cacheStates.cachedPercentage`
// +kubebuilder:printcolumn:name="Phase",type="string",JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="HCFS URL",type="string",JSONPath=`.status.hcfs.endpoint`,priority=10
// +kubebuilder:printcolumn:name="TOTAL FILES",type="string",JSONPath=`.status.fileNum`,priority=11
// +kubebuilder:printcolumn:name="CACHE HIT RATIO",type="string",JSONPath=`.status.cacheStates.cacheHitRatio`,priority=10
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 45",message="metadata.name must be a DNS label that begins with a letter and has at most 45 characters: Services and pods are named after it"
type Dataset struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Where the data is and how pods see it.
	// +optional
	Spec DatasetSpec `json:"spec,omitempty"`
	// What is known of it.
	// +optional
	Status DatasetStatus `json:"status,omitempty"`
}

// DatasetList is a list of Datasets.
// +kubebuilder:object:root=true
type DatasetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Dataset `json:"items"`
}
