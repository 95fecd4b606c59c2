package load

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/objects"
	"millrace.io/millrace/controller/trouble"
)

// check says what of a load cannot be served, "" if all can.
func check(l *v1alpha1.DataLoad) string {
	switch {
	case l.Spec.Dataset.Namespace != "" && l.Spec.Dataset.Namespace != l.Namespace:
		return fmt.Sprintf("spec.dataset.namespace is %q; accepted is the namespace of the load, %q",
			l.Spec.Dataset.Namespace, l.Namespace)
	case l.Spec.Policy == v1alpha1.OnEvent:
		return "spec.policy OnEvent is not supported; accepted are Once and Cron"
	case l.Spec.RunAfter != nil && l.Spec.RunAfter.Kind != v1alpha1.DataLoadKind:
		return fmt.Sprintf("spec.runAfter.kind %s is not supported; accepted is DataLoad", l.Spec.RunAfter.Kind)
	case l.Spec.RunAfter != nil && l.Spec.RunAfter.APIVersion != "" &&
		l.Spec.RunAfter.APIVersion != v1alpha1.GroupVersion.String():
		return fmt.Sprintf("spec.runAfter.apiVersion is %q; accepted is %s", l.Spec.RunAfter.APIVersion,
			v1alpha1.GroupVersion)
	case l.Spec.RunAfter != nil && l.Spec.RunAfter.Namespace != "" && l.Spec.RunAfter.Namespace != l.Namespace:
		return "spec.runAfter.namespace must be that of the load"
	case l.Spec.Policy == v1alpha1.Cron:
		switch schedule, err := parseSchedule(l.Spec.Schedule); {
		case err != nil:
			return fmt.Sprintf("spec.schedule %q is no schedule of five fields: %v", l.Spec.Schedule, err)
		case schedule.Next(l.CreationTimestamp.UTC()).IsZero():
			return fmt.Sprintf("spec.schedule %q is never due; accepted is a schedule of days that there are",
				l.Spec.Schedule)
		}
	}
	return ""
}

// untilDue is how long it is until a scheduled load begins; 0 for now.
func untilDue(l *v1alpha1.DataLoad, now time.Time) time.Duration {
	if l.Spec.Policy != v1alpha1.Cron || l.Status.Phase == v1alpha1.LoadExecuting {
		return 0
	}
	schedule, err := parseSchedule(l.Spec.Schedule)
	if err != nil {
		return 0
	}
	last := l.CreationTimestamp.Time
	if t := l.Status.LastScheduleTime; t != nil {
		last = t.Time
	}
	return max(schedule.Next(last.UTC()).Sub(now), 0)
}

// obstacle says what a load waits for, "" if nothing.
func (r *Reconciler) obstacle(ctx context.Context, l *v1alpha1.DataLoad, dataset *v1alpha1.Dataset) (string, error) {
	if after := l.Spec.RunAfter; after != nil {
		other := &v1alpha1.DataLoad{}
		err := r.Client.Get(ctx, types.NamespacedName{Namespace: l.Namespace, Name: after.Name}, other)
		if err != nil && !apierrors.IsNotFound(err) {
			return "", err
		}
		complete := err == nil && other.Status.Phase == v1alpha1.LoadComplete
		l.Status.WaitingFor.OperationComplete = &complete
		if !complete {
			return fmt.Sprintf("waits for the DataLoad %s to be complete", after.Name), nil
		}
	}
	switch {
	case dataset == nil:
		return fmt.Sprintf("waits for the Dataset %s, which does not exist", l.Spec.Dataset.Name), nil
	case leaving(dataset):
		return fmt.Sprintf("the Dataset %s is being deleted, and the load with it", l.Spec.Dataset.Name), nil
	case belongsToAnother(l, dataset):
		return fmt.Sprintf("belongs to an earlier Dataset %s, with which it is deleted", l.Spec.Dataset.Name), nil
	case dataset.Status.Phase != v1alpha1.Bound:
		return fmt.Sprintf("waits for the Dataset %s to be Bound%s", l.Spec.Dataset.Name, whyNot(dataset)), nil
	}
	return "", nil
}

// whyNot is what keeps the pods of a Dataset from running, "" where nothing does. Else it would change with each step
// of a start.
func whyNot(d *v1alpha1.Dataset) string {
	for _, c := range d.Status.Conditions {
		if c.Type == v1alpha1.Ready && trouble.Is(c.Reason) {
			return "; " + c.Reason + ": " + c.Message
		}
	}
	return ""
}

// unsupported names the fields that have no effect.
func unsupported(l *v1alpha1.DataLoad, now time.Time) {
	s := &l.Spec
	var fields []string
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"options", len(s.Options) > 0},
		{"podMetadata", len(s.PodMetadata.Labels)+len(s.PodMetadata.Annotations) > 0},
		{"affinity", s.Affinity != nil},
		{"tolerations", len(s.Tolerations) > 0},
		{"nodeSelector", len(s.NodeSelector) > 0},
		{"schedulerName", s.SchedulerName != ""},
		{"resources", len(s.Resources.Limits)+len(s.Resources.Requests) > 0},
		{
			"ttlSecondsAfterFinished of a load with a schedule",
			s.Policy == v1alpha1.Cron && s.TTLSecondsAfterFinished != nil,
		},
		{"runAfter.affinityStrategy", s.RunAfter != nil && s.RunAfter.AffinityStrategy != nil},
	} {
		if f.set {
			fields = append(fields, "spec."+f.name)
		}
	}
	for _, key := range objects.WithoutEffect(l) {
		fields = append(fields, "metadata."+key)
	}
	if len(fields) > 0 {
		set(l, v1alpha1.Unsupported, "FieldsWithoutEffect",
			"these fields have no effect, for a load runs in no pod: "+strings.Join(fields, ", "), now)
	}
}

// pending says what a load waits for.
func pending(l *v1alpha1.DataLoad, reason, text string, now time.Time) {
	l.Status.Phase = v1alpha1.LoadPending
	if l.Status.Duration == "" {
		l.Status.Duration = "Unfinished"
	}
	set(l, "Waiting", reason, text, now)
}

// finish ends a load.
func finish(l *v1alpha1.DataLoad, phase v1alpha1.LoadPhase, reason, text string, now time.Time) {
	l.Status.Phase = phase
	if l.Status.Duration == "" {
		l.Status.Duration = "0s"
	}
	kind := v1alpha1.Complete
	if phase == v1alpha1.LoadFailed {
		kind = v1alpha1.Failed
	}
	set(l, kind, reason, text, now)
}

// set writes a condition that is true; another of its kind goes.
func set(l *v1alpha1.DataLoad, kind, reason, text string, now time.Time) {
	want := v1alpha1.Condition{
		Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: text, ObservedGeneration: l.Generation,
		LastTransitionTime: metav1.NewTime(now), LastUpdateTime: metav1.NewTime(now),
	}
	for i := range l.Status.Conditions {
		have := &l.Status.Conditions[i]
		if have.Type != kind {
			continue
		}
		if have.Reason != reason || have.Message != text {
			want.LastTransitionTime = have.LastTransitionTime
			*have = want
		}
		return
	}
	l.Status.Conditions = append(l.Status.Conditions, want)
}

// message is what the last condition says.
func message(l *v1alpha1.DataLoad) string {
	if n := len(l.Status.Conditions); n > 0 {
		return l.Status.Conditions[n-1].Message
	}
	return "loads the Dataset " + l.Spec.Dataset.Name
}
