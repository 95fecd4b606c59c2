package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Condition is one thing that is known about an object. `kubectl wait --for=condition=TYPE` works on it.
type Condition struct {
	// What the condition is about, such as Ready. Each type is there once.
	// +kubebuilder:validation:MinLength=1
	Type string `json:"type"`
	// True, False or Unknown.
	Status corev1.ConditionStatus `json:"status"`
	// Why, in one word, for programs.
	// +optional
	Reason string `json:"reason,omitempty"`
	// Why, in a sentence, for people.
	// +optional
	Message string `json:"message,omitempty"`
	// The generation of the object that the condition is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// When the status changed last.
	// +optional
	LastTransitionTime metav1.Time `json:"lastTransitionTime,omitempty"`
	// When reason or message changed last.
	// +optional
	LastUpdateTime metav1.Time `json:"lastUpdateTime,omitempty"`
	// Not written any more; Fluid wrote when the condition was looked at last.
	// +optional
	LastProbeTime metav1.Time `json:"lastProbeTime,omitempty"`
}

// The types of conditions of Datasets.
const (
	// Ready says that the data can be read through the claim.
	Ready = "Ready"
	// Valid says that the specs are accepted; its message names the field that is not.
	Valid = "Valid"
	// Unsupported is True where a field is set that has no effect; its message names all of them.
	Unsupported = "Unsupported"
	// Mounted says that Alluxio's mounts are those of the spec.
	Mounted = "Mounted"
	// Deleting is True while a deletion waits; its message says for what.
	Deleting = "Deleting"
	// RestartNeeded is True where pods began with a mount that is lost; its message names them.
	RestartNeeded = "RestartNeeded"
)

// The types of conditions of AlluxioRuntimes.
const (
	// MastersReady says that a majority of the masters is ready.
	MastersReady = "MasterReady"
	// WorkersReady says that all workers are ready and registered.
	WorkersReady = "WorkersReady"
	// FusesReady says that the claim is served on the nodes that mount it.
	FusesReady = "FusesReady"
	// JournalPersistent is False where the journal is lost when all masters are.
	JournalPersistent = "JournalPersistent"
	// Applied says that the objects in the cluster are those that the spec asks for.
	Applied = "Applied"
	// TiersSeen is False where agents do not open the files of a tier, so that they are read by network on their own
	// node too; its message names the tier and what mends it.
	TiersSeen = "TiersSeen"
	// Draining is True while what only leaving workers have is copied to others; False says how that ended.
	Draining = "Draining"
	// WorkersScaledOut and WorkersScaledIn are True once the number of workers has been raised, or lowered.
	WorkersScaledOut = "WorkersScaledOut"
	WorkersScaledIn  = "WorkersScaledIn"
	// Progressing is True while pods are replaced one after the other.
	Progressing = "Progressing"
)

// The types of conditions of DataLoads.
const (
	// Complete is True when all was loaded.
	Complete = "Complete"
	// Failed is True when the load has ended without having loaded all.
	Failed = "Failed"
)
