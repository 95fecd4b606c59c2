package reconcile

import (
	"context"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/objects"
	"millrace.io/millrace/controller/trouble"
)

// wonderEvery is how often Events are read while pods are late of which the statuses do not say why. A change of a
// status is seen at once.
const wonderEvery = 4 * time.Second

// troubles are what keeps masters and workers from running.
type troubles struct{ masters, workers trouble.Trouble }

// worst is the one that a Dataset waits for first: without masters no worker registers. away says that no pod of that
// part is ready, so that its work is not done although what was asked last may say so.
func (t troubles) worst(w *world) (worst trouble.Trouble, away bool) {
	none := func(set *appsv1.StatefulSet) bool { return set == nil || set.Status.ReadyReplicas == 0 }
	switch {
	case t.masters.Reason != "" && (none(w.masters) || t.workers.Reason == "" || !none(w.workers)):
		return t.masters, none(w.masters)
	case t.workers.Reason != "":
		return t.workers, none(w.workers)
	}
	return trouble.Trouble{}, false
}

// warnings remembers the Events of Datasets whose pods are late.
type warnings struct {
	// mu guards byKey.
	mu    sync.Mutex
	byKey map[types.NamespacedName]lastWarnings
}

type lastWarnings struct {
	read  time.Time
	items []eventsv1.Event
}

// part is a StatefulSet and those of the pods that have its role.
func (w *world) part(set *appsv1.StatefulSet, role string) trouble.Part {
	p := trouble.Part{Set: set}
	for i := range w.pods {
		if w.pods[i].Labels[roleLabel] == role {
			p.Pods = append(p.Pods, &w.pods[i])
		}
	}
	return p
}

// troubles looks for what keeps the pods from running. It returns when to look again although no pod changes; 0 for
// never.
func (r *Reconciler) troubles(ctx context.Context, w *world, now time.Time) (troubles, time.Duration, error) {
	lead, work := w.part(w.masters, objects.RoleMaster), w.part(w.workers, objects.RoleWorker)
	if !lead.Settles() && !work.Settles() {
		r.warnings.forget(w.key)
		return troubles{lead.Find(nil, now), work.Find(nil, now)}, 0, nil
	}
	var told []eventsv1.Event
	var err error
	if lead.Wonders(now) || work.Wonders(now) {
		told, err = r.warnings.of(ctx, r.Live, w.key, now,
			func(e *eventsv1.Event) bool { return lead.Concerns(e) || work.Concerns(e) })
	}
	return troubles{lead.Find(told, now), work.Find(told, now)}, wonderEvery, err
}

// of are the warnings of a Dataset's namespace that concern it, as they were when they were read last.
func (w *warnings) of(ctx context.Context, live client.Reader, key types.NamespacedName, now time.Time,
	concerns func(*eventsv1.Event) bool,
) ([]eventsv1.Event, error) {
	w.mu.Lock()
	last := w.byKey[key]
	w.mu.Unlock()
	// A little less than the pause, so that the look after it reads anew.
	if now.Sub(last.read) < wonderEvery*3/4 {
		return last.items, nil
	}
	list := &eventsv1.EventList{}
	if err := live.List(ctx, list, client.InNamespace(key.Namespace),
		client.MatchingFields{"type": corev1.EventTypeWarning}); err != nil {
		return last.items, err
	}
	items := slices.DeleteFunc(list.Items, func(e eventsv1.Event) bool { return !concerns(&e) })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byKey == nil {
		w.byKey = make(map[types.NamespacedName]lastWarnings)
	}
	w.byKey[key] = lastWarnings{now, items}
	return items, nil
}

// forget drops what is remembered of a Dataset.
func (w *warnings) forget(key types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.byKey, key)
}

// told is the verdict as people are told it: where pods do not run, why. What the phase is decided by stays the verdict
// itself. Where some pods of each part run, the others' trouble is the runtime's.
func (v verdict) told(t trouble.Trouble, away bool) verdict {
	switch {
	case t.Reason == "" || v.served && !away:
		return v
	case v.reason == "NotMounted":
		// A gateway that does not run is why its mount fails.
		return verdict{false, t.Reason, t.Message + "; " + v.message}
	case v.served, v.reason == starting, v.reason == asking, v.reason == "NoLeader", v.reason == "Mounting",
		v.reason == "NoWorker":
		return verdict{false, t.Reason, t.Message}
	}
	return v
}

// told remembers which trouble was told last of each condition of a Dataset and its runtime: what a cache has of them
// may be older.
type told struct {
	// mu guards byKey.
	mu    sync.Mutex
	byKey map[types.NamespacedName]map[string]string
}

// change records the reason that a condition has now, and returns the one that was told last; before is that of a
// status that was written.
func (l *told) change(key types.NamespacedName, condition, before, now string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byKey == nil {
		l.byKey = make(map[types.NamespacedName]map[string]string)
	}
	if l.byKey[key] == nil {
		l.byKey[key] = make(map[string]string)
	}
	if last, ok := l.byKey[key][condition]; ok {
		before = last
	}
	l.byKey[key][condition] = now
	return before
}

// forget drops what is remembered of a Dataset.
func (l *told) forget(key types.NamespacedName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byKey, key)
}

// tellTrouble writes an event where the trouble of pods or sources has begun, is another, or is over.
func (r *Reconciler) tellTrouble(key types.NamespacedName, o client.Object, now, before v1alpha1.Condition) {
	// Events of one action and reason count as one.
	action := "Reconcile" + now.Type
	last := r.told.change(key, action, before.Reason, now.Reason)
	is, was := trouble.Is(now.Reason) || ofSources(now.Reason), trouble.Is(last) || ofSources(last)
	switch {
	case is && now.Reason != last:
		r.Events.Eventf(o, nil, corev1.EventTypeWarning, now.Reason, action, "%s", now.Message)
	case was && !is:
		r.Events.Eventf(o, nil, corev1.EventTypeNormal, "Mended", action, "%s is over; %s: %s", last, now.Type,
			now.Message)
	}
}
