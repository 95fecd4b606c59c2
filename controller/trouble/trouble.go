// Package trouble says in a sentence why the pods of a StatefulSet do not run, in Kubernetes' own words.
//
// It looks at what others have written: the scheduler and kubelet into the status of pods, and, where a status says
// nothing, the StatefulSet's controller and kubelet into Events. It asks nothing. What a sentence says does not change
// while the trouble is the same: it counts no restarts, and a pause before the next try says what the last try said.
package trouble

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
)

// Trouble is what keeps pods from running. The zero value is none.
type Trouble struct {
	// Reason is one of the constants below.
	Reason string
	// Message names the pod, its node where it has one, and the container.
	Message string
}

// The reasons.
const (
	// ImagePull says that an image cannot be pulled.
	ImagePull = "ImagePull"
	// Unschedulable says that the scheduler finds no node.
	Unschedulable = "Unschedulable"
	// VolumeMount says that a volume cannot be attached or mounted.
	VolumeMount = "VolumeMount"
	// PodSandbox says that the node cannot give the pod a network.
	PodSandbox = "PodSandbox"
	// ContainerStart says that a container cannot be made or started.
	ContainerStart = "ContainerStart"
	// Crash says that a container ends by itself.
	Crash = "Crash"
	// OutOfMemory says that a container was killed because it exceeded its memory.
	OutOfMemory = "OutOfMemory"
	// PodFailed says that a pod has failed as a whole, such as by eviction.
	PodFailed = "PodFailed"
	// Quota says that a ResourceQuota leaves no room for a pod or its claim.
	Quota = "Quota"
	// PodSecurity says that the namespace's Pod Security Standard refuses a pod.
	PodSecurity = "PodSecurity"
	// PodRefused says that the API server refuses a pod or its claim for another reason.
	PodRefused = "PodRefused"
)

// Is reports whether a reason of a condition is one of this package's.
func Is(reason string) bool {
	switch reason {
	case ImagePull, Unschedulable, VolumeMount, PodSandbox, ContainerStart, Crash, OutOfMemory, PodFailed, Quota,
		PodSecurity, PodRefused:
		return true
	}
	return false
}

// Part is a StatefulSet and the pods that it has.
type Part struct {
	// Set is nil where there is none yet.
	Set  *appsv1.StatefulSet
	Pods []*corev1.Pod
}

// Find returns what keeps the part from running, by the statuses and the warnings that are given. The first of several
// troubles is told, and how many other pods have any.
func (p Part) Find(warnings []eventsv1.Event, now time.Time) Trouble {
	var all []Trouble
	if t := p.refused(warnings, now); t.Reason != "" {
		all = append(all, t)
	}
	for _, pod := range p.Pods {
		if t := ofPod(pod, warnings, now); t.Reason != "" {
			all = append(all, t)
		}
	}
	if len(all) == 0 {
		return Trouble{}
	}
	first := all[0]
	first.Message = cut(first.Message)
	switch more := len(all) - 1; more {
	case 0:
	case 1:
		first.Message += "; another pod has trouble too"
	default:
		first.Message += fmt.Sprintf("; %d other pods have trouble too", more)
	}
	return first
}

// longest is how many bytes of a message are told: an Event takes 1,024.
const longest = 900

// cut shortens a text to what an Event takes.
func cut(text string) string {
	if len(text) <= longest {
		return text
	}
	end := longest
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "..."
}

// ofPod is the trouble of one pod.
func ofPod(pod *corev1.Pod, warnings []eventsv1.Event, now time.Time) Trouble {
	switch {
	case pod.DeletionTimestamp != nil:
		return Trouble{}
	case pod.Status.Phase == corev1.PodFailed:
		return Trouble{PodFailed, fmt.Sprintf("%s has failed: %s", name(pod),
			words(pod.Status.Reason, pod.Status.Message))}
	case pod.Spec.NodeName == "":
		return unscheduled(pod, warnings, now)
	}
	for i := range pod.Status.InitContainerStatuses {
		if t := ofContainer(pod, &pod.Status.InitContainerStatuses[i], true); t.Reason != "" {
			return t
		}
	}
	for i := range pod.Status.ContainerStatuses {
		if t := ofContainer(pod, &pod.Status.ContainerStatuses[i], false); t.Reason != "" {
			return t
		}
	}
	if beingMade(pod) {
		return unmade(pod, warnings, now)
	}
	return Trouble{}
}

// name is a pod, and its node where it has one.
func name(pod *corev1.Pod) string {
	if pod.Spec.NodeName == "" {
		return "the pod " + pod.Name
	}
	return "the pod " + pod.Name + " on the node " + pod.Spec.NodeName
}

// words joins those of Kubernetes that are there, on one line.
func words(texts ...string) string {
	var there []string
	for _, text := range texts {
		if text = strings.Join(strings.Fields(text), " "); text != "" {
			there = append(there, text)
		}
	}
	return strings.Join(there, ": ")
}

// unscheduled is the trouble of a pod that has no node.
func unscheduled(pod *corev1.Pod, warnings []eventsv1.Event, now time.Time) Trouble {
	why := refusedByScheduler(pod)
	if why == nil {
		return Trouble{}
	}
	message := fmt.Sprintf("%s cannot be scheduled: %s", name(pod), words(why.Message))
	if claim := newest(warnings, now, aboutClaimsOf(pod)); claim != nil {
		message += fmt.Sprintf("; the claim %s: %s", claim.Regarding.Name, words(claim.Note))
	}
	return Trouble{Unschedulable, message}
}

// refusedByScheduler is the condition by which the scheduler says that it has no node for a pod, nil where it does not
// say so.
func refusedByScheduler(pod *corev1.Pod) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		c := &pod.Status.Conditions[i]
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason != "" {
			return c
		}
	}
	return nil
}
