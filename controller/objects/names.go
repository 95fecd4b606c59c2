package objects

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// The labels of all objects that the controller makes.
const (
	ManagedByLabel = "app.kubernetes.io/managed-by"
	ManagedBy      = "millrace"
	// DatasetLabel and NamespaceLabel name the Dataset.
	DatasetLabel   = "millrace.io/dataset"
	NamespaceLabel = "millrace.io/namespace"
)

// The labels of pods; their names are Fluid's, for dashboards and autoscalers know them.
const (
	appLabel     = "app"
	releaseLabel = "release"
	roleLabel    = "role"
	// RoleMaster and RoleWorker are the values of the label role.
	RoleMaster = "alluxio-master"
	RoleWorker = "alluxio-worker"
	// SweepsLabel names the Dataset of a sweeper, which is none of its servers.
	SweepsLabel = "millrace.io/sweeps"
	// cacheNodeLabel and placementLabel say whose workers they are, and beside whose they may be.
	cacheNodeLabel = "fluid.io/dataset"
	placementLabel = "fluid.io/dataset-placement"
	// occupiesLabel says what of its node a worker or a sweeper takes: occupiesNode, or the directories of a Dataset,
	// which the value of cacheNodeLabel names. That has a hyphen in it.
	occupiesLabel = "millrace.io/occupies"
	occupiesNode  = "node"
)

// ConfigHash is the annotation of pods that tells which configuration they run with.
const ConfigHash = "millrace.io/config"

// SourcesHash is the annotation of pods with gateways that tells what these are to serve. It is written to the running
// pods, so that their kubelet looks at the Secret at once: gateways follow what it has.
const SourcesHash = "millrace.io/sources"

// The conditions that pods need to be ready, beside their containers. The controller sets them.
const (
	// RaftRole says that a master knows whether it leads.
	RaftRole = "millrace.io/raft-role"
	// Registered says that the leading master knows the worker.
	Registered = "millrace.io/registered"
)

// names of the objects of one Dataset.
type names struct{ namespace, name string }

func (n names) masters() string      { return n.name + "-master" }
func (n names) workers() string      { return n.name + "-worker" }
func (n names) config() string       { return n.name + "-config" }
func (n names) gateway() string      { return n.name + "-gateway" }
func (n names) node() string         { return n.name + "-node" }
func (n names) master(i int) string  { return fmt.Sprintf("%s-master-%d", n.name, i) }
func (n names) address(i int) string { return n.master(i) + "." + n.namespace + ".svc" }

// GatewaySecretName is the name of the Secret with the keys and options of a Dataset's gateways.
func GatewaySecretName(dataset string) string { return names{name: dataset}.gateway() }

// SecretsMade are the names of the Secrets that are made for a Dataset.
func SecretsMade(dataset string) []string {
	n := names{name: dataset}
	return []string{n.gateway(), n.node()}
}

// KeysFile is its key with the keys.
const KeysFile = "keys"

// ConfigName is the name of the ConfigMap with Alluxio's properties.
func ConfigName(dataset string) string { return names{name: dataset}.config() }

// MasterSetName and WorkerSetName are the names of the StatefulSets.
func MasterSetName(dataset string) string { return names{name: dataset}.masters() }

// WorkerSetName is the name of the workers' StatefulSet.
func WorkerSetName(dataset string) string { return names{name: dataset}.workers() }

// VolumeName is the name of the Dataset's PersistentVolume, which has no namespace of its own; qualified has the
// namespace in it always, as Fluid has it.
func VolumeName(namespace, name string, qualified bool) string {
	if namespace == metav1.NamespaceDefault && !qualified {
		return name
	}
	return namespace + "-" + name
}

// PodLabels select the pods of a role.
func PodLabels(dataset, role string) map[string]string {
	return map[string]string{appLabel: "alluxio", releaseLabel: dataset, roleLabel: role}
}

// meta is that of an object in the namespace.
func (b *builder) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: b.names.namespace}
}

// masterCount is the number of masters.
func masterCount(spec *v1alpha1.AlluxioRuntimeSpec) int {
	return int(max(spec.Master.Replicas, 1))
}

// masterAddresses are host:port of each master, as they are reached from everywhere in the cluster.
func (b *builder) masterAddresses() []string {
	addresses := make([]string, masterCount(b.spec))
	for i := range addresses {
		addresses[i] = net.JoinHostPort(b.names.address(i), strconv.Itoa(int(b.ports.masterRPC)))
	}
	return addresses
}

// shortHash is a name for something whose own is too long or has other characters.
func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}
