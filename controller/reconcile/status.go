package reconcile

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/masters"
	"millrace.io/millrace/controller/objects"
	"millrace.io/millrace/controller/trouble"
)

// patience is how long a Dataset that was bound may go without being served before it has failed. A master's failover
// is shorter.
const patience = time.Minute

// The reasons of Ready while nothing is known yet: the masters, or the sources, have not been asked.
const (
	starting = "Starting"
	asking   = "Asking"
)

// verdict is whether a Dataset is served, and why not.
type verdict struct {
	served          bool
	reason, message string
}

// judge decides whether a Dataset is served.
func judge(w *world, out *outcome) verdict {
	if v := judgeSpecs(w, out); v.reason != "" {
		return v
	}
	return judgeAlluxio(w, out)
}

// judgeSpecs says what is in the way before Alluxio is asked; the zero verdict where nothing is.
func judgeSpecs(w *world, out *outcome) verdict {
	switch {
	case len(out.problems) > 0:
		return verdict{false, "InvalidSpec", sentences(out.problems)}
	case w.runtime == nil:
		return verdict{false, "NoRuntime", "there is no AlluxioRuntime of the Dataset's name"}
	case w.dataset == nil:
		return verdict{false, "NoDataset", "there is no Dataset of the runtime's name"}
	case out.waits != nil:
		return verdict{false, "Deleting", out.waits.message}
	case out.failure != nil && out.plan == nil:
		return verdict{false, "Refused", out.failure.Error()}
	}
	return verdict{}
}

// judgeAlluxio decides by what masters, workers and sources say.
func judgeAlluxio(w *world, out *outcome) verdict {
	state := w.clusters
	switch {
	case !state.Asked:
		return verdict{false, starting, "the masters have not been asked yet"}
	case state.Err != "":
		return verdict{false, pick(state.Disagree, "MastersDisagree", "NoLeader"), state.Err}
	case !state.Mounted && state.MountErr != "":
		return verdict{false, "NotMounted", state.MountErr}
	case !state.Mounted:
		return verdict{false, "Mounting", "the mounts are being made"}
	case w.runtime.Spec.Replicas > 0 && !w.works():
		return verdict{false, "NoWorker", "no worker has registered with the leading master"}
	case out.failure != nil && w.claim == nil:
		return verdict{false, "Refused", out.failure.Error()}
	case out.plan != nil && !sourcesAsked(out.plan.Sources, state):
		return verdict{false, asking, "the sources are being asked whether they can be read"}
	case out.plan != nil && len(out.plan.Sources) == 0:
		return verdict{
			true, "DatasetReady",
			"the Dataset has no mounts, so that its claim is empty until there are some in spec.mounts",
		}
	}
	return verdict{true, "DatasetReady", "the data is served by " + state.Leader}
}

func sentences(problems []objects.Problem) string {
	texts := make([]string, len(problems))
	for i, p := range problems {
		texts[i] = p.String()
	}
	return strings.Join(texts, "; ")
}

// datasetStatus is the status of a Dataset at a time.
func datasetStatus(w *world, out *outcome, now time.Time) *v1alpha1.DatasetStatus {
	s := w.dataset.Status.DeepCopy()
	v := judge(w, out)
	s.ObservedGeneration = w.dataset.Generation
	s.OperationRef = nil
	if len(w.loads) > 0 {
		s.OperationRef = map[string]string{v1alpha1.DataLoadKind: strings.Join(w.loads, ",")}
	}
	c := conditions{list: &s.Conditions, generation: w.dataset.Generation, now: metav1.NewTime(now)}
	if !unknown(w, out, v) {
		told := v.tell(w, out)
		c.set(v1alpha1.Ready, told.served, told.reason, told.message)
	}
	if w.runtime != nil && out.waits == nil {
		c.set(v1alpha1.Valid, len(out.problems) == 0, pick(len(out.problems) == 0, "Accepted", "InvalidSpec"),
			sentences(out.problems))
		c.set(v1alpha1.Mounted, w.clusters.Mounted, pick(w.clusters.Mounted, "Mounted", "NotMounted"),
			w.clusters.MountErr)
	}
	c.unsupported(out.plan)
	c.waits(out.waits)
	c.restarts(out.lost)
	s.Phase = phase(w, v, s.Conditions, now)
	if w.runtime == nil {
		s.UfsTotal, s.FileNum, s.CacheStates, s.HCFSStatus, s.Runtimes, s.Mounts = "", "", nil, nil, nil, nil
		return s
	}
	if out.plan == nil {
		return s
	}
	if w.clusters.Asked && w.clusters.Err == "" {
		s.CacheStates = cacheStates(w.clusters)
		s.UfsTotal, s.FileNum = "", ""
		switch {
		case w.clusters.Sized:
			s.UfsTotal, s.FileNum = size(w.clusters.Total), strconv.FormatInt(w.clusters.Files, 10)
		case out.plan.Sized:
			s.UfsTotal = "[Calculating]"
		}
		if w.clusters.Mounted {
			s.Mounts = w.dataset.Spec.Mounts
		}
	}
	if v.served {
		s.HCFSStatus = &v1alpha1.HCFSStatus{Endpoint: "alluxio://" + out.plan.Masters[0]}
		s.Runtimes = []v1alpha1.Runtime{{
			Name: w.runtime.Name, Namespace: w.runtime.Namespace, Category: "Accelerate", Type: "alluxio",
			MasterReplicas: int32(len(out.plan.Masters)),
		}}
	}
	return s
}

// tell is the verdict as people are told it, by what keeps pods from running and what was asked of sources.
func (v verdict) tell(w *world, out *outcome) verdict {
	told := v.told(out.trouble.worst(w))
	if out.plan != nil && told == v {
		told = v.reads(sourceTrouble(out.plan.Sources, w.clusters))
	}
	return told
}

// unasked reports whether there are masters or sources that were not asked yet.
func (v verdict) unasked(w *world) bool {
	return v.reason == asking || v.reason == starting && w.running() > 0
}

// unknown reports whether nothing was found out yet of a Dataset that was bound, as after the controller's own start:
// what was said of it holds until there is an answer.
func unknown(w *world, out *outcome, v verdict) bool {
	before := w.dataset.Status
	bound := before.Phase == v1alpha1.Bound || before.Phase == v1alpha1.Updating
	return bound && v.unasked(w) && out.trouble == (troubles{}) && find(before.Conditions, v1alpha1.Ready).Status != ""
}

// phase is the state in a word.
func phase(w *world, v verdict, known []v1alpha1.Condition, now time.Time) v1alpha1.DatasetPhase {
	before := w.dataset.Status.Phase
	switch {
	case v.served:
		return v1alpha1.Bound
	case before == v1alpha1.Bound || before == v1alpha1.Updating:
		return phaseOfBound(w, v, known, now)
	case w.runtime == nil:
		return v1alpha1.NotBound
	case v.refused() || before == v1alpha1.FailedPhase && v.reason != starting:
		return v1alpha1.FailedPhase
	}
	return v1alpha1.NotBound
}

// phaseOfBound is the phase of a Dataset that was bound, and is not served now.
func phaseOfBound(w *world, v verdict, known []v1alpha1.Condition, now time.Time) v1alpha1.DatasetPhase {
	before, fresh := w.dataset.Status.Phase, since(known, v1alpha1.Ready, now) < patience
	switch {
	case v.unasked(w):
		return before
	case w.runtime == nil:
		return v1alpha1.NotBound
	case fresh && find(known, v1alpha1.Ready).Reason == "NotMounted":
		// A gateway takes a moment to know of a mount that was added.
		return v1alpha1.Updating
	case v.refused():
		return v1alpha1.FailedPhase
	case v.reason == "Mounting":
		return v1alpha1.Updating
	case fresh || v.reason == "Deleting":
		return before
	}
	return v1alpha1.FailedPhase
}

// refused reports whether nothing but another spec, or another source, mends it.
func (v verdict) refused() bool {
	return v.reason == "InvalidSpec" || v.reason == "Refused" || v.reason == "NotMounted"
}

// since is how long a condition has been what it is.
func since(known []v1alpha1.Condition, kind string, now time.Time) time.Duration {
	for i := range known {
		if known[i].Type == kind {
			return now.Sub(known[i].LastTransitionTime.Time)
		}
	}
	return 0
}

// cacheStates are the numbers of the cache.
func cacheStates(state masters.State) v1alpha1.CacheStates {
	states := v1alpha1.CacheStates{v1alpha1.Cached: size(state.Used), v1alpha1.CacheCapacity: size(state.Capacity)}
	if state.Sized {
		states[v1alpha1.CachedPercentage] = percentage(state.Used, state.Total)
	}
	if hits, known := state.Reads.Hits(); known {
		states[v1alpha1.CacheHitRatio], states[v1alpha1.LocalHitRatio],
			states[v1alpha1.RemoteHitRatio] = ratio(hits.Cache), ratio(hits.Local), ratio(hits.Remote)
	}
	if rates, known := state.Reads.Throughput(); known {
		states[v1alpha1.CacheThroughputRatio], states[v1alpha1.LocalThroughputRatio],
			states[v1alpha1.RemoteThroughputRatio] = ratio(rates.Cache), ratio(rates.Local), ratio(rates.Remote)
	}
	return states
}

// ratio is a part of one as people read it.
func ratio(part float64) string { return fmt.Sprintf("%.1f%%", part*100) }

// percentage is 100.0% when all is there, and less before.
func percentage(part, whole int64) string {
	if part >= whole {
		if whole == 0 {
			return "0.0%"
		}
		return "100.0%"
	}
	return fmt.Sprintf("%.1f%%", min(float64(part)/float64(whole)*100, 99.9))
}

// size is a number of bytes as Fluid shows it: 550.12MiB, 0.00B.
func size(n int64) string {
	value, units := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	i := 0
	for value >= 1024 && i < len(units)-1 {
		value /= 1024
		i++
	}
	return fmt.Sprintf("%.2f%s", value, units[i])
}

// runtimeStatus is the status of a runtime at a time.
func runtimeStatus(w *world, out *outcome, now time.Time) *v1alpha1.AlluxioRuntimeStatus {
	s := w.runtime.Status.DeepCopy()
	known, had := s.ObservedGeneration > 0, s.DesiredWorkerNumberScheduled
	s.ObservedGeneration = w.runtime.Generation
	s.ValueFileConfigmap = objects.ConfigName(w.key.Name)
	s.TierNodes = tierNodes(w, out.swept)
	s.Selector = labels.SelectorFromSet(objects.PodLabels(w.key.Name, objects.RoleWorker)).String()
	s.DesiredMasterNumberScheduled = max(w.runtime.Spec.Master.Replicas, 1)
	s.CurrentMasterNumberScheduled, s.MasterNumberReady = counts(w.masters)
	s.DesiredWorkerNumberScheduled = w.runtime.Spec.Replicas
	s.CurrentWorkerNumberScheduled, s.WorkerNumberReady = counts(w.workers)
	s.WorkerNumberAvailable = s.WorkerNumberReady
	s.WorkerNumberUnavailable = max(s.DesiredWorkerNumberScheduled-s.WorkerNumberReady, 0)
	s.MasterPhase = runtimePhase(s.MasterNumberReady, s.DesiredMasterNumberScheduled)
	s.WorkerPhase = runtimePhase(s.WorkerNumberReady, s.DesiredWorkerNumberScheduled)
	nodes, ready := usersNodes(w.users)
	s.DesiredFuseNumberScheduled, s.CurrentFuseNumberScheduled = nodes, nodes
	s.FuseNumberReady, s.FuseNumberAvailable, s.FuseNumberUnavailable = ready, ready, nodes-ready
	s.FusePhase = runtimePhase(ready, nodes)
	if w.clusters.Asked && w.clusters.Err == "" {
		s.CacheStates = cacheStates(w.clusters)
	}
	if w.dataset != nil && w.clusters.Mounted && (s.MountTime == nil ||
		!equality.Semantic.DeepEqual(s.Mounts, w.dataset.Spec.Mounts)) {
		s.Mounts, s.MountTime = w.dataset.Spec.Mounts, &metav1.Time{Time: now}
	}
	c := conditions{list: &s.Conditions, generation: w.runtime.Generation, now: metav1.NewTime(now)}
	if known {
		c.scaled(had, s.DesiredWorkerNumberScheduled)
	}
	s.MasterReason = c.part(v1alpha1.MastersReady, "masters", s.MasterNumberReady, s.DesiredMasterNumberScheduled,
		out.trouble.masters, w.clusters.Err)
	s.WorkerReason = c.part(v1alpha1.WorkersReady, "workers", s.WorkerNumberReady, s.DesiredWorkerNumberScheduled,
		out.trouble.workers, "")
	s.FuseReason = c.part(v1alpha1.FusesReady, "nodes with pods that use the claim", ready, nodes, trouble.Trouble{},
		"")
	persistent := objects.PersistentJournal(&w.runtime.Spec)
	c.set(v1alpha1.JournalPersistent, persistent, pick(persistent, "OnClaims", "EmptyDir"), pick(persistent, "",
		"the journal is in an emptyDir: when all masters lose their pods at once, Alluxio forgets what it has cached "+
			"and it is read again; name a storage class in spec.master.journal to keep it"))
	c.applied(out)
	c.tiers(out.plan)
	c.draining(out.drain)
	c.unsupported(out.plan)
	c.waits(out.waits)
	if judge(w, out).served && s.SetupDuration == "" {
		s.SetupDuration = now.Sub(w.runtime.CreationTimestamp.Time).Round(time.Second).String()
	}
	return s
}

func counts(set *appsv1.StatefulSet) (current, ready int32) {
	if set == nil {
		return 0, 0
	}
	return set.Status.Replicas, set.Status.ReadyReplicas
}

func runtimePhase(ready, desired int32) v1alpha1.RuntimePhase {
	switch {
	case ready >= desired:
		return v1alpha1.ReadyPhase
	case ready > 0:
		return v1alpha1.PartialReady
	}
	return v1alpha1.NotReady
}

// usersNodes counts the nodes of the pods that use the claim, and those of them where one runs, so that it is mounted.
func usersNodes(users []corev1.Pod) (nodes, ready int32) {
	mounted := map[string]bool{}
	for i := range users {
		if node := users[i].Spec.NodeName; node != "" {
			mounted[node] = mounted[node] || users[i].Status.Phase == corev1.PodRunning
		}
	}
	for _, is := range mounted {
		nodes++
		if is {
			ready++
		}
	}
	return nodes, ready
}

func pick(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}
