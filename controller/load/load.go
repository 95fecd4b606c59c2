// Package load carries DataLoads out: it says when one begins (schedule.go), has package masters bring the data into
// the workers, and tells its progress in the status.
//
// A load runs in a goroutine of this process, for it only asks workers to read. A controller that takes over begins a
// load anew that was under way; what is cached already costs it a question for each block.
//
// A load is its object's, by UID: one that takes another's name has nothing of it. It belongs to the Dataset that it
// found (belong.go), by UID as well: it goes with that Dataset, stops as soon as that is being deleted, and never goes
// on with another Dataset of the name.
package load

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/masters"
	"millrace.io/millrace/controller/objects"
)

// Reconciler carries loads out. Its exported fields are set before the first call.
type Reconciler struct {
	Client   client.Client
	Clusters *masters.Clusters
	Events   events.EventRecorder
	Log      *slog.Logger
	// Life ends all loads.
	Life context.Context

	// mu guards the rest.
	mu sync.Mutex
	// runs are the loads under way or ended whose end is not in the status yet.
	runs map[types.NamespacedName]*run
}

// run is one load under way.
type run struct {
	// load and dataset are whose it is.
	load, dataset types.UID

	begun  time.Time
	cancel context.CancelFunc

	// mu guards the rest.
	mu       sync.Mutex
	progress masters.Progress
	ended    time.Time
	err      error
}

const (
	// tellEvery is how often progress is written.
	tellEvery = 2 * time.Second
	// waitEvery is how often a load that waits for something looks again.
	waitEvery = 5 * time.Second
)

// Setup has the manager call the reconciler.
func (r *Reconciler) Setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).Named("dataload").For(&v1alpha1.DataLoad{}).
		Watches(&v1alpha1.Dataset{}, handler.EnqueueRequestsFromMapFunc(r.ofDataset), builder.WithPredicates(turns)).
		Complete(r)
}

// Reconcile looks how far a load is, and does what is next.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	l := &v1alpha1.DataLoad{}
	if err := r.Client.Get(ctx, request.NamespacedName, l); err != nil {
		r.stop(request.NamespacedName)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if l.DeletionTimestamp != nil {
		r.stop(request.NamespacedName)
		return ctrl.Result{}, nil
	}
	dataset, err := r.dataset(ctx, l)
	if err != nil {
		return ctrl.Result{}, err
	}
	if err := r.belong(ctx, l, dataset); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	before := l.DeepCopy()
	wait, err := r.step(ctx, request.NamespacedName, l, dataset)
	if err != nil {
		return ctrl.Result{}, err
	}
	l.Status.ObservedGeneration = l.Generation
	if !equality.Semantic.DeepEqual(before.Status, l.Status) {
		if err := r.Client.Status().Patch(ctx, l, client.MergeFrom(before)); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
		if l.Status.Phase != before.Status.Phase {
			r.tell(l)
		}
	}
	return ctrl.Result{RequeueAfter: wait}, nil
}

// step does what is next, and says when to look again; 0 for never.
func (r *Reconciler) step(
	ctx context.Context, key types.NamespacedName, l *v1alpha1.DataLoad, dataset *v1alpha1.Dataset,
) (time.Duration, error) {
	now := time.Now()
	if wrong := check(l); wrong != "" {
		finish(l, v1alpha1.LoadFailed, "Refused", wrong, now)
		return 0, nil
	}
	if current := r.run(key, l, dataset); current != nil {
		return r.follow(key, l, current, now), nil
	}
	ended := l.Status.Phase == v1alpha1.LoadComplete || l.Status.Phase == v1alpha1.LoadFailed
	if ended && l.Spec.Policy != v1alpha1.Cron {
		return r.expire(ctx, l, now)
	}
	if wait := untilDue(l, now); wait > 0 {
		if !ended {
			pending(l, "Scheduled", "waits for the next time of its schedule", now)
		}
		return wait, nil
	}
	why, err := r.obstacle(ctx, l, dataset)
	if err != nil {
		return 0, err
	}
	if why != "" {
		pending(l, "Waiting", why, now)
		return waitEvery, nil
	}
	r.begin(key, l, dataset, now)
	l.Status.Phase, l.Status.Duration, l.Status.Infos = v1alpha1.LoadExecuting, "Unfinished", nil
	if l.Spec.Policy == v1alpha1.Cron {
		l.Status.LastScheduleTime = &metav1.Time{Time: now}
	}
	l.Status.Conditions = nil
	unsupported(l, now)
	return tellEvery, nil
}

// begin starts the load.
func (r *Reconciler) begin(key types.NamespacedName, l *v1alpha1.DataLoad, dataset *v1alpha1.Dataset, now time.Time) {
	root, name := objects.Root(dataset), client.ObjectKeyFromObject(dataset)
	var targets []masters.Target
	for _, t := range l.Spec.Target {
		targets = append(targets, masters.Target{Path: path.Join(root, t.Path), Replicas: int(t.Replicas)})
	}
	if len(targets) == 0 {
		targets = []masters.Target{{Path: root, Replicas: 1}}
	}
	ctx, cancel := context.WithCancel(r.Life)
	started := &run{load: l.UID, dataset: dataset.UID, begun: now, cancel: cancel}
	r.mu.Lock()
	if r.runs == nil {
		r.runs = make(map[types.NamespacedName]*run)
	}
	r.runs[key] = started
	r.mu.Unlock()
	metadata := l.Spec.LoadMetadata
	go func() {
		defer cancel()
		err := r.Clusters.Load(ctx, name, targets, metadata, func(p masters.Progress) {
			started.mu.Lock()
			defer started.mu.Unlock()
			started.progress = p
		})
		started.mu.Lock()
		defer started.mu.Unlock()
		started.ended, started.err = time.Now(), err
	}()
}

// follow writes how far a load is.
func (r *Reconciler) follow(key types.NamespacedName, l *v1alpha1.DataLoad, current *run, now time.Time) time.Duration {
	current.mu.Lock()
	defer current.mu.Unlock()
	p := current.progress
	l.Status.Infos = infos(p)
	if current.ended.IsZero() {
		l.Status.Phase, l.Status.Duration = v1alpha1.LoadExecuting, "Unfinished"
		return tellEvery
	}
	r.stop(key)
	l.Status.Duration = current.ended.Sub(current.begun).Round(10 * time.Millisecond).String()
	switch {
	case current.err != nil:
		finish(l, v1alpha1.LoadFailed, "LoadFailed", current.err.Error(), now)
	case p.Failed > 0:
		finish(l, v1alpha1.LoadFailed, "FilesFailed",
			fmt.Sprintf("%d of %d files could not be loaded; the first was %s", p.Failed, p.FilesTotal, p.FirstFailure),
			now)
	default:
		finish(l, v1alpha1.LoadComplete, "DataLoadComplete", fmt.Sprintf("%d files are cached", p.Files), now)
		if l.Spec.Policy == v1alpha1.Cron {
			l.Status.LastSuccessfulTime = &metav1.Time{Time: now}
		}
	}
	return waitEvery
}

// infos are the progress as the status has it.
func infos(p masters.Progress) map[string]string {
	percent := "0"
	switch {
	case p.BytesTotal > 0:
		percent = strconv.FormatInt(p.Bytes*100/p.BytesTotal, 10)
	case p.FilesTotal > 0 && p.Files == p.FilesTotal:
		percent = "100"
	}
	return map[string]string{
		"percent": percent, "bytesLoaded": strconv.FormatInt(p.Bytes, 10),
		"bytesTotal":  strconv.FormatInt(p.BytesTotal, 10),
		"filesLoaded": strconv.FormatInt(p.Files, 10), "filesTotal": strconv.FormatInt(p.FilesTotal, 10),
		"filesFailed": strconv.FormatInt(p.Failed, 10),
	}
}

// expire deletes a load whose time is over.
func (r *Reconciler) expire(ctx context.Context, l *v1alpha1.DataLoad, now time.Time) (time.Duration, error) {
	ttl := l.Spec.TTLSecondsAfterFinished
	if ttl == nil {
		return 0, nil
	}
	end := now
	for _, c := range l.Status.Conditions {
		if c.Type == v1alpha1.Complete || c.Type == v1alpha1.Failed {
			end = c.LastTransitionTime.Time
		}
	}
	if left := end.Add(time.Duration(*ttl) * time.Second).Sub(now); left > 0 {
		return left, nil
	}
	return 0, client.IgnoreNotFound(r.Client.Delete(ctx, l))
}

// run is the load under way of an object. One of another object of its name is ended, and so is one whose Dataset is
// gone or going.
func (r *Reconciler) run(key types.NamespacedName, l *v1alpha1.DataLoad, dataset *v1alpha1.Dataset) *run {
	r.mu.Lock()
	defer r.mu.Unlock()
	current := r.runs[key]
	if current == nil || current.load == l.UID && !leaving(dataset) && dataset.UID == current.dataset {
		return current
	}
	current.cancel()
	delete(r.runs, key)
	return nil
}

// stop ends a load and forgets it.
func (r *Reconciler) stop(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if current := r.runs[key]; current != nil {
		current.cancel()
	}
	delete(r.runs, key)
}
