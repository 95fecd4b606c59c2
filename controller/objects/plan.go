package objects

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/cacheclient/network"
	"millrace.io/millrace/controller/api/v1alpha1"
)

// Settings are what an operator decides for all Datasets.
type Settings struct {
	// AlluxioImage runs masters and workers where a runtime names none.
	AlluxioImage string
	// MillraceImage runs gateways.
	MillraceImage string
	// Driver is the name of the CSI driver.
	Driver string
	// Namespace is where the controller and the agents run.
	Namespace string
	// TierDirs are the directories of nodes in which agents open the files of tiers; none where it is not known.
	TierDirs []string
	// QualifiedVolumes has new volumes be called NAMESPACE-NAME in the namespace default, too.
	QualifiedVolumes bool
	// Network is whom gateways trust, and which proxies they use, where a Dataset says nothing.
	Network network.Settings
}

// Input is what the objects are made from. Nothing of it is changed.
type Input struct {
	Dataset *v1alpha1.Dataset
	Runtime *v1alpha1.AlluxioRuntime
	// Secrets are those that the Dataset names, by name; one that is not there is missing here.
	Secrets map[string]*corev1.Secret
	// VolumeName is that of the volume that the claim names, "" where there is no claim.
	VolumeName string
	// Workers is how many workers are kept at least, while those that leave are being drained.
	Workers int32
	// Keys sign requests to gateways.
	Keys     gateway.Keys
	Settings Settings
}

// Object is a Kubernetes object of a Go type.
type Object interface {
	metav1.Object
	runtime.Object
}

// Problem is a part of a spec that cannot be served.
type Problem struct {
	// Field is the path of the field, from the object's kind on: Dataset.spec.mounts[0].mountPoint.
	Field string
	// Why is a sentence.
	Why string
}

// String is the problem in a line.
func (p Problem) String() string { return p.Field + ": " + p.Why }

// Plan is what there is to be.
type Plan struct {
	// Objects are in the order in which they are applied. Those in the namespace belong to the runtime.
	Objects []Object
	// Volume and Claim are part of Objects.
	Volume *corev1.PersistentVolume
	Claim  *corev1.PersistentVolumeClaim
	// Masters are host:port of each master.
	Masters []string
	// Mounts are those that Alluxio is to have; they may have secrets.
	Mounts []rpc.Mount
	// Sources are what the mounts show.
	Sources []Source
	// SourcesHash tells what the gateways' Secret has, "" where there are none. Pods have it as an annotation.
	SourcesHash string
	// User is the name that the masters run as, which may do everything in Alluxio.
	User string
	// Pinned keeps what is cached from being evicted.
	Pinned bool
	// Reserved is what each worker counts as used and caches nothing in, in bytes.
	Reserved int64
	// Sized has the sizes of the sources found out.
	Sized bool
	// Clean bounds how the cache is emptied at the end.
	Clean Clean
	// Unseen says which tiers agents do not open, and what mends that, "" for none.
	Unseen string
	// Unsupported are the paths of fields that are set and have no effect.
	Unsupported []string
}

// Clean says how often it is tried to empty a cache, and how long each time.
type Clean struct {
	Attempts int
	Patience time.Duration
}

// What holds where the API server has set no defaults.
const (
	cleanAttempts = 3
	cleanPatience = time.Minute
)

// addPolicies says what is done with Alluxio beside its objects.
func (p *Plan) addPolicies(spec *v1alpha1.AlluxioRuntimeSpec) {
	p.User, p.Pinned, p.Sized, p.Clean = "root", spec.Data.Pin, true, Clean{cleanAttempts, cleanPatience}
	if as := spec.RunAs; as != nil {
		p.User = as.UserName
	}
	if auto := spec.Management.MetadataSyncPolicy.AutoSync; auto != nil {
		p.Sized = *auto
	}
	policy := spec.Management.CleanCachePolicy
	if n := policy.MaxRetryAttempts; n != nil {
		p.Clean.Attempts = int(*n)
	}
	if s := policy.GracePeriodSeconds; s != nil {
		p.Clean.Patience = time.Duration(*s) * time.Second
	}
}

// NeedsGateway reports whether pods of the Dataset have gateways, whose keys must then be made first: a mount goes
// through one, or there is none yet.
func NeedsGateway(dataset *v1alpha1.Dataset, settings Settings) bool {
	if len(dataset.Spec.Mounts) == 0 {
		return true
	}
	for i := range dataset.Spec.Mounts {
		if viaGateway(dataset, &dataset.Spec.Mounts[i], settings.Network) {
			return true
		}
	}
	return false
}

// builder is what all parts of the objects are made from.
type builder struct {
	Input
	spec   *v1alpha1.AlluxioRuntimeSpec
	names  names
	mounts []mount
	tiers  []tier
	ports  ports
}

// Desired returns what the Dataset and the runtime, which have the same name and namespace, become; or why they
// cannot.
func Desired(in Input) (*Plan, []Problem) {
	b := &builder{Input: in, spec: &in.Runtime.Spec, names: names{in.Dataset.Namespace, in.Dataset.Name}}
	problems := checkNames(in)
	var more []Problem
	b.mounts, more = resolveMounts(in)
	problems = append(problems, more...)
	b.tiers, more = resolveTiers(b.names, b.spec)
	problems = append(problems, more...)
	b.ports, more = resolvePorts(b.names, b.spec, b.gateways())
	problems = append(problems, more...)
	problems = append(problems, append(checkEnv("master", &b.spec.Master.ComponentSpec),
		checkEnv("worker", &b.spec.Worker)...)...)
	problems = append(problems, checkResources(b.spec, b.tiers)...)
	capacity, more := volumeCapacity(in.Dataset)
	problems = append(problems, more...)
	if len(problems) > 0 {
		return nil, problems
	}
	without := slices.Concat(unsupported(in.Dataset, b.spec), b.keptAgainst(), metadataWithoutEffect(in))
	slices.Sort(without)
	plan := &Plan{Masters: b.masterAddresses(), Mounts: b.alluxioMounts(), Unsupported: without}
	plan.Sources, plan.Unseen = b.sources(), b.unseen()
	if b.serving() {
		plan.SourcesHash = b.sourcesHash()
	}
	plan.addPolicies(b.spec)
	plan.Reserved = setAside(b.spec, b.tiers)
	plan.Volume, plan.Claim = b.volume(capacity), b.claim(capacity)
	plan.Objects = append(plan.Objects, b.secrets()...)
	plan.Objects = append(plan.Objects, b.configMap())
	plan.Objects = append(plan.Objects, b.services()...)
	plan.Objects = append(plan.Objects, b.networkPolicies()...)
	plan.Objects = append(plan.Objects, b.disruptionBudgets()...)
	plan.Objects = append(plan.Objects, b.masterSet(), b.workerSet(), plan.Volume, plan.Claim)
	b.own(plan.Objects)
	return plan, nil
}

// own makes the objects of the namespace the runtime's, so that they go when it goes.
func (b *builder) own(objects []Object) {
	yes := true
	owner := metav1.OwnerReference{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.AlluxioRuntimeKind, Name: b.Runtime.Name,
		UID:        b.Runtime.UID,
		Controller: &yes, BlockOwnerDeletion: &yes,
	}
	for _, o := range objects {
		labels := o.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[ManagedByLabel] = ManagedBy
		labels[DatasetLabel] = b.names.name
		labels[NamespaceLabel] = b.names.namespace
		o.SetLabels(labels)
		if o.GetNamespace() != "" {
			o.SetOwnerReferences([]metav1.OwnerReference{owner})
		}
	}
}
