package trouble

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// settling is how long nothing is wrong with what is being made.
	settling = 2 * time.Second
	// kubeletRepeats is how long a warning about a pod is believed: kubelet tries again, and warns, at least every 2
	// minutes.
	kubeletRepeats = 5 * time.Minute
	// setRepeats is the same for a StatefulSet, which is tried again at least every 1,000 seconds.
	setRepeats = 20 * time.Minute
)

// Wonders reports whether something is late of which the statuses do not tell why, but Events may.
func (p Part) Wonders(now time.Time) bool {
	if p.short() && now.Sub(p.Set.CreationTimestamp.Time) >= settling {
		return true
	}
	return slices.ContainsFunc(p.Pods, func(pod *corev1.Pod) bool {
		return silent(pod) &&
			now.Sub(pod.CreationTimestamp.Time) >= settling
	})
}

// Settles reports whether something is being made that may come to be late.
func (p Part) Settles() bool {
	return p.short() || slices.ContainsFunc(p.Pods, silent)
}

// Concerns reports whether a warning is about the part.
func (p Part) Concerns(warning *eventsv1.Event) bool {
	return p.Set != nil && about(warning, p.Set.UID) || slices.ContainsFunc(p.Pods, func(pod *corev1.Pod) bool {
		return about(warning, pod.UID) || aboutClaimsOf(pod)(warning)
	})
}

// silent reports whether a pod's status may not tell all that keeps it from running.
func silent(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && (beingMade(pod) || refusedByScheduler(pod) != nil && len(claims(pod)) > 0)
}

// short reports whether the StatefulSet has fewer pods than it is to have, although its controller has looked at it.
func (p Part) short() bool {
	if p.Set == nil || p.Set.DeletionTimestamp != nil || p.Set.Status.ObservedGeneration != p.Set.Generation {
		return false
	}
	wanted := int32(1)
	if p.Set.Spec.Replicas != nil {
		wanted = *p.Set.Spec.Replicas
	}
	return p.Set.Status.Replicas < wanted
}

// refused is the trouble of a StatefulSet whose pods or claims the API server does not accept.
func (p Part) refused(warnings []eventsv1.Event, now time.Time) Trouble {
	if !p.short() {
		return Trouble{}
	}
	last := newest(warnings, now, func(e *eventsv1.Event) bool {
		return about(e, p.Set.UID) && e.Reason == "FailedCreate" && p.sinceLastPod(e)
	})
	if last == nil {
		return Trouble{}
	}
	note := words(last.Note)
	reason := PodRefused
	switch {
	case strings.Contains(note, "exceeded quota") || strings.Contains(note, "failed quota") ||
		strings.Contains(note, "for quota"):
		reason = Quota
	case strings.Contains(note, "violates PodSecurity"):
		reason = PodSecurity
	}
	return Trouble{reason, fmt.Sprintf("the StatefulSet %s cannot have all its pods: %s", p.Set.Name, note)}
}

// sinceLastPod reports whether a warning is not older than the newest pod, whose making was accepted. Both times have
// whole seconds.
func (p Part) sinceLastPod(e *eventsv1.Event) bool {
	at := seen(e).Truncate(time.Second)
	return !slices.ContainsFunc(p.Pods, func(pod *corev1.Pod) bool { return pod.CreationTimestamp.After(at) })
}

// beingMade reports whether a pod has a node, and none of its containers runs or says why it does not.
func beingMade(pod *corev1.Pod) bool {
	if pod.Spec.NodeName == "" || pod.Status.Phase != corev1.PodPending {
		return false
	}
	made := func(c corev1.ContainerStatus) bool {
		return c.State.Running != nil || c.State.Terminated != nil || c.LastTerminationState.Terminated != nil
	}
	return !slices.ContainsFunc(pod.Status.InitContainerStatuses, made) &&
		!slices.ContainsFunc(pod.Status.ContainerStatuses, made)
}

// unmade is why kubelet does not get to the containers of a pod.
func unmade(pod *corev1.Pod, warnings []eventsv1.Event, now time.Time) Trouble {
	last := newest(warnings, now, func(e *eventsv1.Event) bool {
		_, known := kubeletWarnings[e.Reason]
		return known && about(e, pod.UID) && now.Sub(seen(e)) < kubeletRepeats
	})
	if last == nil {
		return Trouble{}
	}
	w := kubeletWarnings[last.Reason]
	return Trouble{w.reason, fmt.Sprintf("%s: %s: %s", name(pod), w.what, words(last.Note))}
}

// kubeletWarnings are the reasons of Events about pods whose containers are not there yet.
var kubeletWarnings = map[string]struct{ reason, what string }{
	"FailedMount":            {VolumeMount, "a volume cannot be mounted"},
	"FailedAttachVolume":     {VolumeMount, "a volume cannot be attached"},
	"FailedMapVolume":        {VolumeMount, "a volume cannot be mapped"},
	"FailedCreatePodSandBox": {PodSandbox, "its sandbox cannot be made"},
	"NetworkNotReady":        {PodSandbox, "its node has no network"},
}

func about(e *eventsv1.Event, uid types.UID) bool { return uid != "" && e.Regarding.UID == uid }

// claims are the names of those that a pod uses.
func claims(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Spec.Volumes {
		if claim := pod.Spec.Volumes[i].PersistentVolumeClaim; claim != nil {
			names = append(names, claim.ClaimName)
		}
	}
	return names
}

// aboutClaimsOf matches warnings about the claims of a pod.
func aboutClaimsOf(pod *corev1.Pod) func(*eventsv1.Event) bool {
	names := claims(pod)
	return func(e *eventsv1.Event) bool {
		return e.Regarding.Kind == "PersistentVolumeClaim" && slices.Contains(names, e.Regarding.Name)
	}
}

// newest is the warning that was seen last of those that match and are not too old, nil where there is none.
func newest(warnings []eventsv1.Event, now time.Time, match func(*eventsv1.Event) bool) *eventsv1.Event {
	var last *eventsv1.Event
	for i := range warnings {
		e := &warnings[i]
		if match(e) && now.Sub(seen(e)) < setRepeats && (last == nil || seen(e).After(seen(last))) {
			last = e
		}
	}
	return last
}

// seen is when what an Event tells was seen last. Each of the two APIs of Events has times of its own.
func seen(e *eventsv1.Event) time.Time {
	at := e.CreationTimestamp.Time
	times := []time.Time{e.DeprecatedLastTimestamp.Time, e.EventTime.Time}
	if e.Series != nil {
		times = append(times, e.Series.LastObservedTime.Time)
	}
	for _, t := range times {
		if t.After(at) {
			at = t
		}
	}
	return at
}
