package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TargetDataset names a Dataset.
type TargetDataset struct {
	// Name of the Dataset.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Namespace of the Dataset; it must be that of the load.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Namespace string `json:"namespace,omitempty"`
}

// TargetPath is a file or directory to load.
type TargetPath struct {
	// Absolute path in the Dataset.
	// +kubebuilder:validation:Pattern=`^/`
	// +kubebuilder:validation:MaxLength=4096
	Path string `json:"path"`
	// How many workers get a copy of each block; 1 where it is not given.
	// +kubebuilder:validation:Minimum=0
	// +optional
	Replicas int32 `json:"replicas,omitempty"`
}

// Policy says when something runs.
// +kubebuilder:validation:Enum=Once;Cron;OnEvent
type Policy string

// The policies.
const (
	// Once runs when it is created.
	Once Policy = "Once"
	// Cron runs by a schedule.
	Cron Policy = "Cron"
	// OnEvent is not supported.
	OnEvent Policy = "OnEvent"
)

// OperationRef names an operation to wait for.
type OperationRef struct {
	// Version of the operation's API.
	// +optional
	APIVersion string `json:"apiVersion,omitempty"`
	// Kind of the operation.
	// +kubebuilder:validation:Enum=DataLoad;DataBackup;DataMigrate;DataProcess
	Kind string `json:"kind"`
	// Name of the operation.
	Name string `json:"name"`
	// Namespace of the operation.
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// Not supported: where the next operation runs.
	// +kubebuilder:pruning:PreserveUnknownFields
	// +optional
	AffinityStrategy *AffinityStrategy `json:"affinityStrategy,omitempty"`
}

// AffinityStrategy is part of Fluid's API; loads run in no pod that could be placed.
type AffinityStrategy struct {
	// Require, Prefer or empty.
	// +optional
	Policy string `json:"policy,omitempty"`
}

// DataLoadSpec says what to load.
// +kubebuilder:validation:XValidation:rule="self.policy != 'Cron' || has(self.schedule) && size(self.schedule) > 0",message="the policy Cron needs a schedule, such as 0 3 * * *",fieldPath=".schedule"
// +kubebuilder:validation:XValidation:rule="self == oldSelf || self.policy == 'Cron' && oldSelf.policy == 'Cron'",message="a load cannot change once it is there; create another"
type DataLoadSpec struct {
	// The Dataset to load.
	Dataset TargetDataset `json:"dataset"`
	// Compare the metadata with the source first.
	// +optional
	LoadMetadata bool `json:"loadMetadata,omitempty"`
	// What to load; all where nothing is given.
	// +kubebuilder:validation:MaxItems=256
	// +listType=atomic
	// +optional
	Target []TargetPath `json:"target,omitempty"`
	// Not supported: options of Fluid's load program.
	// +optional
	Options map[string]string `json:"options,omitempty"`
	// Not supported: a load runs in no pod.
	// +optional
	PodMetadata PodMetadata `json:"podMetadata,omitempty"`
	// Not supported: a load runs in no pod.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`
	// Not supported: a load runs in no pod.
	// +optional
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// Not supported: a load runs in no pod.
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// Not supported: a load runs in no pod.
	// +optional
	SchedulerName string `json:"schedulerName,omitempty"`
	// Once, or Cron with a schedule.
	// +kubebuilder:default=Once
	// +optional
	Policy Policy `json:"policy,omitempty"`
	// When to load, in the five fields of cron, in UTC.
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Schedule string `json:"schedule,omitempty"`
	// An operation to wait for; of the kinds, DataLoad is supported.
	// +optional
	RunAfter *OperationRef `json:"runAfter,omitempty"`
	// Seconds after its end after which a load is deleted; never where it is not given.
	// +kubebuilder:validation:Minimum=0
	// +optional
	TTLSecondsAfterFinished *int32 `json:"ttlSecondsAfterFinished,omitempty"`
	// Not supported: a load runs in no pod.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitempty"`
}

// WaitingStatus says what an operation waits for.
type WaitingStatus struct {
	// Whether the operation that was waited for is complete.
	// +optional
	OperationComplete *bool `json:"operationComplete,omitempty"`
}

// LoadPhase is the state of a load in a word.
type LoadPhase string

// The phases of a load.
const (
	// LoadPending has not begun.
	LoadPending LoadPhase = "Pending"
	// LoadExecuting runs.
	LoadExecuting LoadPhase = "Executing"
	// LoadComplete has loaded all.
	LoadComplete LoadPhase = "Complete"
	// LoadFailed has ended without having loaded all.
	LoadFailed LoadPhase = "Failed"
)

// DataLoadStatus is what is known of a load.
type DataLoadStatus struct {
	// The generation of the spec that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// The state in a word.
	// +optional
	Phase LoadPhase `json:"phase"`
	// How long it took, or Unfinished.
	// +optional
	Duration string `json:"duration"`
	// What is known in detail.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []Condition `json:"conditions,omitempty"`
	// Progress: percent, bytesLoaded, bytesTotal, filesLoaded, filesTotal, filesFailed.
	// +optional
	Infos map[string]string `json:"infos,omitempty"`
	// When a scheduled load began last.
	// +optional
	LastScheduleTime *metav1.Time `json:"lastScheduleTime,omitempty"`
	// When a scheduled load ended well last.
	// +optional
	LastSuccessfulTime *metav1.Time `json:"lastSuccessfulTime,omitempty"`
	// What is waited for.
	// +optional
	WaitingFor WaitingStatus `json:"waitingFor,omitempty"`
}

// DataLoad brings data of a Dataset into the cache before it is read.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,categories={fluid},shortName=load
// +kubebuilder:printcolumn:name="Dataset",type="string",JSONPath=`.spec.dataset.name`
// +kubebuilder:printcolumn:name="Phase",type="string",JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Duration",type="string",JSONPath=`.status.duration`
type DataLoad struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// What to load.
	// +optional
	Spec DataLoadSpec `json:"spec,omitempty"`
	// How far it is.
	// +optional
	Status DataLoadStatus `json:"status,omitempty"`
}

// DataLoadList is a list of DataLoads.
// +kubebuilder:object:root=true
type DataLoadList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DataLoad `json:"items"`
}
