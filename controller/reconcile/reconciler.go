package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"millrace.io/millrace/cacheclient/network"
	"millrace.io/millrace/controller/lost"
	"millrace.io/millrace/controller/masters"
	"millrace.io/millrace/controller/objects"
)

// Finalizer keeps a Dataset or a runtime until what was made for it is gone.
const Finalizer = "millrace.io/cleanup"

// Reconciler serves all Datasets. Its fields are set before the first call.
type Reconciler struct {
	// Client reads from caches, Live from the API server.
	Client   client.Client
	Live     client.Reader
	Clusters *masters.Clusters
	Settings objects.Settings
	// NetworkDir has the network's settings, which are read at each look; "" for none.
	NetworkDir string
	// Namespace is the only one that is served; all if "".
	Namespace string
	// Addresses of a Dataset's masters, where they are not those that were planned; nil for none.
	Addresses func(key types.NamespacedName, planned []string) []string
	// SecretAge is how long a user's Secret is believed; 15 s if 0.
	SecretAge time.Duration
	// Lost knows pods that have to be restarted; nil for nothing.
	Lost   *lost.Watcher
	Events events.EventRecorder
	Log    *slog.Logger

	secrets  secretCache
	emptying emptying
	warnings warnings
	told     told
	words    words
}

// outcome is what came of the specs.
type outcome struct {
	// plan is nil where there are problems.
	plan     *objects.Plan
	problems []objects.Problem
	// failure is what the API server did not accept.
	failure error
	// waits says what a deletion waits for.
	waits *waiting
	// replacing names the pod that is being replaced.
	replacing string
	// again is when to look again although nothing has happened; never if 0.
	again time.Duration
	// swept are nodes from which tiers were removed.
	swept []string
	// drain is about the workers that leave, nil where none do.
	drain *drain
	// trouble is what keeps pods from running.
	trouble troubles
	// lost are the names of pods that have to be restarted.
	lost []string
}

// Reconcile brings one Dataset and its runtime to what their specs say.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	if r.Namespace != "" && request.Namespace != r.Namespace {
		// A volume of a Dataset that another controller serves.
		return ctrl.Result{}, nil
	}
	w, err := r.observe(ctx, request.NamespacedName)
	if err != nil {
		return ctrl.Result{}, err
	}
	switch {
	case w.dataset == nil && w.runtime == nil:
		r.Clusters.Forget(w.key)
		r.warnings.forget(w.key)
		r.told.forget(w.key)
		r.words.news(w.key, nil, time.Time{})
		return ctrl.Result{}, r.removeSweepers(ctx, w.key, nil)
	case w.dataset != nil && w.dataset.DeletionTimestamp != nil, w.runtime != nil && w.runtime.DeletionTimestamp != nil:
		return r.remove(ctx, w)
	case w.dataset == nil || w.runtime == nil:
		return r.report(ctx, w, outcome{})
	}
	if err := r.hold(ctx, w); err != nil {
		return ctrl.Result{}, err
	}
	r.tellUsers(w, time.Now())
	out := outcome{drain: drainOf(w, time.Now())}
	out.plan, out.problems, err = r.plan(ctx, w, out.drain)
	if err == nil && out.plan != nil {
		want := r.want(w, out.plan)
		want.Leaving = out.drain.hosts()
		r.Clusters.Want(w.key, want)
		out.failure = r.apply(ctx, w.key, out.plan.Objects)
		if out.failure == nil {
			out.failure = r.renew(ctx, w, out.plan.SourcesHash)
		}
		out.replacing, err = r.pods(ctx, w, out.plan)
		if err == nil && placed(w) {
			var waits *waiting
			if out.swept, waits, err = r.sweep(ctx, w); waits != nil {
				out.again = sweepPatience
			}
		}
	}
	var again time.Duration
	var unread error
	out.trouble, again, unread = r.troubles(ctx, w, time.Now())
	result, reportErr := r.report(ctx, w, out)
	return sooner(result, again), errors.Join(err, out.failure, reportErr, unread)
}

// sooner is a result that does not wait longer than again, where that is not 0.
func sooner(result ctrl.Result, again time.Duration) ctrl.Result {
	if again > 0 && (result.RequeueAfter == 0 || again < result.RequeueAfter) {
		result.RequeueAfter = again
	}
	return result
}

// hold puts our finalizer on both, so that we see them go.
func (r *Reconciler) hold(ctx context.Context, w *world) error {
	for _, o := range []client.Object{w.dataset, w.runtime} {
		before, _ := o.DeepCopyObject().(client.Object) // A deep copy has the same type.
		if !controllerutil.AddFinalizer(o, Finalizer) {
			continue
		}
		if err := r.Client.Patch(ctx, o, client.MergeFromWithOptions(before,
			client.MergeFromWithOptimisticLock{})); err != nil {
			return err
		}
	}
	return nil
}

// plan says what there is to be.
func (r *Reconciler) plan(ctx context.Context, w *world, d *drain) (*objects.Plan, []objects.Problem, error) {
	settings, err := r.settings()
	if err != nil {
		return nil, nil, err
	}
	in := objects.Input{
		Dataset: w.dataset, Runtime: w.runtime, Settings: settings, Workers: d.keeps(),
		VolumeName: w.volumeName(settings),
	}
	if in.Secrets, err = r.secrets.named(ctx, r.Live, w.key.Namespace, objects.SecretNames(w.dataset),
		r.secretAge(w.clusters)); err != nil {
		return nil, nil, err
	}
	if objects.NeedsGateway(w.dataset, settings) {
		if in.Keys, err = r.secrets.keys(ctx, r.Live, types.NamespacedName{
			Namespace: w.key.Namespace,
			Name:      objects.GatewaySecretName(w.key.Name),
		}); err != nil {
			return nil, nil, err
		}
	}
	plan, problems := objects.Desired(in)
	return plan, problems, nil
}

// settings are the operator's, with those of the network as their Secret has them now.
func (r *Reconciler) settings() (objects.Settings, error) {
	s := r.Settings
	var err error
	if r.NetworkDir != "" {
		s.Network, err = network.Read(r.NetworkDir)
	}
	return s, err
}

// want is what the Dataset's Alluxio is to have. Without a pod there is no master to ask.
func (r *Reconciler) want(w *world, plan *objects.Plan) masters.Want {
	want := masters.Want{
		User: plan.User, Mounts: plan.Mounts, Masters: plan.Masters, Sizes: plan.Sized, Pinned: plan.Pinned,
		Reserved: plan.Reserved,
	}
	if r.Addresses != nil {
		want.Masters = r.Addresses(w.key, plan.Masters)
	}
	want.Idle = r.Addresses == nil && w.running() == 0
	want.Sources, want.Hosts, want.Seen = plan.Sources, w.masterHosts(len(plan.Masters)), w.seen()
	return want
}

// standardSecretAge is how long a user's Secret is believed: a change is noticed within it. absentAge is the same for
// one that is not there, or of a source that cannot be read.
const (
	standardSecretAge = 15 * time.Second
	absentAge         = 5 * time.Second
)

func (r *Reconciler) secretAge(state masters.State) time.Duration {
	age := standardSecretAge
	if r.SecretAge > 0 {
		age = r.SecretAge
	}
	if ailing(state) {
		age = min(age, absentAge)
	}
	return age
}
