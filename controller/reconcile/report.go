package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/objects"
)

// report writes what is known into the status of both, and says when to look again.
func (r *Reconciler) report(ctx context.Context, w *world, out outcome) (ctrl.Result, error) {
	now := time.Now()
	result := ctrl.Result{RequeueAfter: out.again}
	var errs []error
	if w.dataset != nil {
		out.lost = r.Lost.Of(w.key)
		before := w.dataset.DeepCopy()
		w.dataset.Status = *datasetStatus(w, &out, now)
		if !equality.Semantic.DeepEqual(before.Status, w.dataset.Status) {
			errs = append(errs, r.writeStatus(ctx, w.dataset, before.Status, w.dataset.Status))
			r.tellDataset(w, before)
		}
		if statusIs(w.dataset.Status.Conditions, v1alpha1.Ready, corev1.ConditionFalse) &&
			w.dataset.Status.Phase == v1alpha1.Bound {
			// It has failed when it is not served for longer.
			result.RequeueAfter = patience
		}
		if len(objects.SecretNames(w.dataset)) > 0 || r.NetworkDir != "" {
			age := r.secretAge(w.clusters)
			if len(out.problems) > 0 {
				age = min(age, absentAge)
			}
			result = sooner(result, age)
		}
	}
	if w.runtime != nil {
		if out.drain.keeps() > 0 {
			result.RequeueAfter = lookAgain
		}
		before := w.runtime.DeepCopy()
		w.runtime.Status = *runtimeStatus(w, &out, now)
		if !equality.Semantic.DeepEqual(before.Status, w.runtime.Status) {
			errs = append(errs, r.writeStatus(ctx, w.runtime, before.Status, w.runtime.Status))
			r.tellRuntime(w, before)
		}
	}
	return result, errors.Join(errs...)
}

// writeStatus replaces a status. All of it is sent, for a zero that was never written is not the same as one that was.
func (r *Reconciler) writeStatus(ctx context.Context, o client.Object, before, after any) error {
	was, err := fieldsOf(before)
	if err != nil {
		return err
	}
	status, err := fieldsOf(after)
	if err != nil {
		return err
	}
	for key := range was {
		if _, ok := status[key]; !ok {
			status[key] = nil
		}
	}
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	target, _ := o.DeepCopyObject().(client.Object) // A deep copy has the same type.
	return client.IgnoreNotFound(r.Client.Status().Patch(ctx, target, client.RawPatch(types.MergePatchType, patch)))
}

// fieldsOf is a value as JSON has it.
func fieldsOf(v any) (map[string]any, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	fields := map[string]any{}
	return fields, json.Unmarshal(text, &fields)
}

// tellDataset writes an event where the state in a word has changed, or why it is what it is.
func (r *Reconciler) tellDataset(w *world, before *v1alpha1.Dataset) {
	now := w.dataset.Status
	ready := find(now.Conditions, v1alpha1.Ready)
	if now.Phase != before.Status.Phase {
		kind := corev1.EventTypeNormal
		if now.Phase == v1alpha1.FailedPhase {
			kind = corev1.EventTypeWarning
		}
		r.Events.Eventf(w.dataset, nil, kind, string(now.Phase), "Reconcile", "%s", ready.Message)
		r.Log.Info("phase", "dataset", w.key, "phase", now.Phase, "before", before.Status.Phase, "reason", ready.Reason)
	}
	r.tellTrouble(w.key, w.dataset, ready, find(before.Status.Conditions, v1alpha1.Ready))
	if d := find(now.Conditions, v1alpha1.Deleting); d.Message != "" &&
		d.Message != find(before.Status.Conditions, v1alpha1.Deleting).Message {
		r.Events.Eventf(w.dataset, nil, corev1.EventTypeNormal, d.Reason, "Delete", "%s", d.Message)
	}
}

// tellRuntime writes an event for what a person should see.
func (r *Reconciler) tellRuntime(w *world, before *v1alpha1.AlluxioRuntime) {
	for _, kind := range []string{v1alpha1.MastersReady, v1alpha1.WorkersReady} {
		r.tellTrouble(w.key, w.runtime, find(w.runtime.Status.Conditions, kind), find(before.Status.Conditions, kind))
	}
	for _, kind := range []string{
		v1alpha1.Applied, v1alpha1.Unsupported, v1alpha1.Deleting, v1alpha1.Progressing,
		v1alpha1.Draining, v1alpha1.TiersSeen, v1alpha1.WorkersScaledOut, v1alpha1.WorkersScaledIn,
	} {
		now, then := find(w.runtime.Status.Conditions, kind), find(before.Status.Conditions, kind)
		if now.Message == "" || now.Message == then.Message {
			continue
		}
		level := corev1.EventTypeNormal
		if kind == v1alpha1.Applied || kind == v1alpha1.Unsupported || kind == v1alpha1.TiersSeen ||
			now.Reason == "Incomplete" || now.Reason == "DeadlineExceeded" {
			level = corev1.EventTypeWarning
		}
		r.Events.Eventf(w.runtime, nil, level, now.Reason, "Reconcile", "%s", now.Message)
	}
}

func find(list []v1alpha1.Condition, kind string) v1alpha1.Condition {
	for i := range list {
		if list[i].Type == kind {
			return list[i]
		}
	}
	return v1alpha1.Condition{}
}
