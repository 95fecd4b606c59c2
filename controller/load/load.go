// Package load carries DataLoads out: it says when one begins (schedule.go), has package masters bring the data into
// the workers, and tells its progress in the status.
//
// A load runs in a goroutine of this process, for it only asks workers to read. A controller that takes over begins a
// load anew that was under way; what is cached already costs it a question for each block.
package load

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

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

	mu sync.Mutex // guards what follows
	// runs are the loads under way or ended whose end is not in the status yet.
	runs map[types.NamespacedName]*run
}

// run is one load under way.
type run struct {
	begun  time.Time
	cancel context.CancelFunc

	mu       sync.Mutex // guards what follows
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
	return ctrl.NewControllerManagedBy(mgr).Named("dataload").For(&v1alpha1.DataLoad{}).Complete(r)
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
	before := l.DeepCopy()
	wait, err := r.step(ctx, request.NamespacedName, l)
	if err != nil {
		return ctrl.Result{}, err
	}
	l.Status.ObservedGeneration = l.Generation
	if !equality.Semantic.DeepEqual(before.Status, l.Status) {
		if err := r.Client.Status().Patch(ctx, l, client.MergeFrom(before)); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
		if l.Status.Phase != before.Status.Phase {
			r.Events.Eventf(l, nil, "Normal", "DataLoad"+string(l.Status.Phase), "Load", "%s", message(l))
		}
	}
	return ctrl.Result{RequeueAfter: wait}, nil
}

// step does what is next, and says when to look again; 0 for never.
func (r *Reconciler) step(ctx context.Context, key types.NamespacedName, l *v1alpha1.DataLoad) (time.Duration, error) {
	now := time.Now()
	if wrong := check(l); wrong != "" {
		finish(l, v1alpha1.LoadFailed, "Refused", wrong, now)
		return 0, nil
	}
	if current := r.run(key); current != nil {
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
	why, err := r.obstacle(ctx, l)
	if err != nil {
		return 0, err
	}
	if why != "" {
		pending(l, "Waiting", why, now)
		return waitEvery, nil
	}
	dataset := &v1alpha1.Dataset{}
	name := types.NamespacedName{Namespace: l.Namespace, Name: l.Spec.Dataset.Name}
	if err := r.Client.Get(ctx, name, dataset); err != nil {
		return waitEvery, client.IgnoreNotFound(err)
	}
	r.begin(key, name, l, objects.Root(dataset), now)
	l.Status.Phase, l.Status.Duration, l.Status.Infos = v1alpha1.LoadExecuting, "Unfinished", nil
	if l.Spec.Policy == v1alpha1.Cron {
		l.Status.LastScheduleTime = &metav1.Time{Time: now}
	}
	l.Status.Conditions = nil
	unsupported(l, now)
	return tellEvery, nil
}

// begin starts the load.
func (r *Reconciler) begin(key, dataset types.NamespacedName, l *v1alpha1.DataLoad, root string, now time.Time) {
	var targets []masters.Target
	for _, t := range l.Spec.Target {
		targets = append(targets, masters.Target{Path: path.Join(root, t.Path), Replicas: int(t.Replicas)})
	}
	if len(targets) == 0 {
		targets = []masters.Target{{Path: root, Replicas: 1}}
	}
	ctx, cancel := context.WithCancel(r.Life)
	started := &run{begun: now, cancel: cancel}
	r.mu.Lock()
	if r.runs == nil {
		r.runs = make(map[types.NamespacedName]*run)
	}
	r.runs[key] = started
	r.mu.Unlock()
	metadata := l.Spec.LoadMetadata
	go func() {
		defer cancel()
		err := r.Clusters.Load(ctx, dataset, targets, metadata, func(p masters.Progress) {
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
		finish(l, v1alpha1.LoadFailed, "FilesFailed", fmt.Sprintf("%d of %d files could not be loaded; the first was %s", p.Failed, p.FilesTotal, p.FirstFailure), now)
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
		"percent": percent, "bytesLoaded": strconv.FormatInt(p.Bytes, 10), "bytesTotal": strconv.FormatInt(p.BytesTotal, 10),
		"filesLoaded": strconv.FormatInt(p.Files, 10), "filesTotal": strconv.FormatInt(p.FilesTotal, 10), "filesFailed": strconv.FormatInt(p.Failed, 10),
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

func (r *Reconciler) run(key types.NamespacedName) *run {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.runs[key]
}

// stop ends a load and forgets it.
func (r *Reconciler) stop(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if current := r.runs[key]; current != nil {
		current.cancel()
	}
	maps.DeleteFunc(r.runs, func(k types.NamespacedName, _ *run) bool { return k == key })
}
