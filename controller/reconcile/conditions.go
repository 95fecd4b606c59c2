package reconcile

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/lost"
	"millrace.io/millrace/controller/objects"
	"millrace.io/millrace/controller/trouble"
)

// conditions writes those of one object.
type conditions struct {
	list       *[]v1alpha1.Condition
	generation int64
	now        metav1.Time
}

// set writes a condition. Times change only with what they are of, so that a status that says the same is the same.
func (c *conditions) set(kind string, is bool, reason, message string) {
	want := v1alpha1.Condition{
		Type: kind, Status: statusOf(is), Reason: reason, Message: message, ObservedGeneration: c.generation,
		LastTransitionTime: c.now, LastUpdateTime: c.now,
	}
	for i := range *c.list {
		have := &(*c.list)[i]
		if have.Type != kind {
			continue
		}
		if have.Status == want.Status {
			want.LastTransitionTime = have.LastTransitionTime
			if have.Reason == want.Reason && have.Message == want.Message {
				want.LastUpdateTime = have.LastUpdateTime
			}
		}
		*have = want
		return
	}
	*c.list = append(*c.list, want)
}

// drop takes a condition away.
func (c *conditions) drop(kind string) {
	kept := (*c.list)[:0]
	for _, have := range *c.list {
		if have.Type != kind {
			kept = append(kept, have)
		}
	}
	*c.list = kept
}

// unsupported names the fields that have no effect; without a plan nothing is known.
func (c *conditions) unsupported(plan *objects.Plan) {
	switch {
	case plan == nil:
	case len(plan.Unsupported) == 0:
		c.drop(v1alpha1.Unsupported)
	default:
		c.set(v1alpha1.Unsupported, true, "FieldsWithoutEffect",
			"these fields are set and have no effect: "+strings.Join(plan.Unsupported, ", "))
	}
}

// tiers reports whether agents open the tiers; without a plan nothing is known.
func (c *conditions) tiers(plan *objects.Plan) {
	if plan != nil {
		seen := plan.Unseen == ""
		c.set(v1alpha1.TiersSeen, seen, pick(seen, "Seen", "NotSeen"), plan.Unseen)
	}
}

func (c *conditions) waits(w *waiting) {
	if w == nil {
		c.drop(v1alpha1.Deleting)
		return
	}
	c.set(v1alpha1.Deleting, true, w.reason, w.message)
}

// restarts names the pods that have to be restarted.
func (c *conditions) restarts(pods []string) {
	if len(pods) == 0 {
		c.drop(v1alpha1.RestartNeeded)
		return
	}
	c.set(v1alpha1.RestartNeeded, true, lost.Reason,
		"these pods cannot read the volume any more, as driver, agent and "+
			"keeper of their node were gone at once; delete them: "+strings.Join(pods, ", "))
}

// part reports whether all of a part are ready, and returns why not: the trouble of its pods, else what more is known.
func (c *conditions) part(kind, what string, ready, desired int32, t trouble.Trouble, more string) string {
	message := fmt.Sprintf("%d of %d %s are ready", ready, desired, what)
	if ready >= desired {
		c.set(kind, true, "Ready", message)
		return ""
	}
	reason := "NotReady"
	if t.Reason != "" {
		reason, more = t.Reason, t.Message
	}
	if more != "" {
		message += "; " + more
	}
	c.set(kind, false, reason, message)
	return message
}

// applied reports whether the objects are what they should be.
func (c *conditions) applied(out *outcome) {
	switch {
	case out.waits != nil:
	case len(out.problems) > 0:
		c.set(v1alpha1.Applied, false, "InvalidSpec", sentences(out.problems))
	case out.failure != nil:
		reason := string(apierrors.ReasonForError(out.failure))
		if reason == "" {
			reason = "Refused"
		}
		c.set(v1alpha1.Applied, false, reason, out.failure.Error())
	case out.plan != nil:
		c.set(v1alpha1.Applied, true, "Applied", "")
	default:
		c.set(v1alpha1.Applied, false, "NoDataset", "there is no Dataset of the runtime's name")
	}
	if out.replacing != "" {
		c.set(v1alpha1.Progressing, true, "Replacing", "the pod "+out.replacing+
			" is being replaced by one of the new spec")
	} else {
		c.set(v1alpha1.Progressing, false, "UpToDate", "")
	}
}

// scaled notes a new number of workers, by Fluid's types of conditions.
func (c *conditions) scaled(was, is int32) {
	kind := v1alpha1.WorkersScaledOut
	if is < was {
		kind = v1alpha1.WorkersScaledIn
	}
	if is != was {
		c.set(kind, true, kind, fmt.Sprintf("from %d workers to %d", was, is))
	}
}

// statusIs reports whether a condition has that status.
func statusIs(list []v1alpha1.Condition, kind string, status corev1.ConditionStatus) bool {
	for i := range list {
		if list[i].Type == kind {
			return list[i].Status == status
		}
	}
	return false
}
