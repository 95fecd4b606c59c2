package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// stuck is what cannot mend itself.
type stuck struct {
	what string // the workload or the pod
	why  string
	mend string
	// Of a container that ends again and again, for its log.
	pod, container string
}

// How long something may be so before no change of it is expected.
const (
	pullTries    = 3
	crashes      = 2
	briefly      = 10 * time.Second // a container that cannot be made; no node for a DaemonSet
	schedulingIn = 20 * time.Second // a pod that no node takes: pods that end may make room
)

// judge remembers since when things are so.
type judge struct {
	now   func() time.Time
	since map[string]time.Time
	// seen are the counts of events from before the installation, which say nothing of it.
	seen map[types.UID]int32
}

func newJudge(before *state) *judge {
	j := &judge{now: time.Now, since: map[string]time.Time{}, seen: map[types.UID]int32{}}
	if before != nil {
		for _, e := range before.events {
			j.seen[e.UID] = e.Count
		}
	}
	return j
}

// lasts reports whether something has been so for that long.
func (j *judge) lasts(what string, long time.Duration) bool {
	since, known := j.since[what]
	if !known {
		since = j.now()
		j.since[what] = since
	}
	return j.now().Sub(since) >= long
}

// verdict is what a workload is stuck at, nil where it may go on by itself.
func (j *judge) verdict(s *state, p part) *stuck {
	if st := j.noPods(s, p); st != nil {
		return st
	}
	for _, pod := range s.podsOf(p) {
		if st := j.podVerdict(s, p, pod); st != nil {
			return st
		}
	}
	return nil
}

// noPods is why a workload has no pods, or too few.
func (j *judge) noPods(s *state, p part) *stuck {
	var message string
	switch p.kind {
	case deployment:
		if d := s.deployments[p.name]; d != nil {
			message = replicaFailure(s.current(d))
		}
	case daemonSet:
		d := s.daemonSets[p.name]
		if d == nil {
			return nil
		}
		if d.Status.ObservedGeneration >= d.Generation && d.Status.DesiredNumberScheduled == 0 &&
			j.lasts(p.String()+" no node", briefly) {
			labels := selector(d.Spec.Template.Spec.NodeSelector)
			return &stuck{
				what: p.String(), why: "no node has the labels that it asks for, " + labels,
				mend: "kubectl label node NODE " + strings.ReplaceAll(labels, ",", " ") +
					", or another nodeSelector: make deploy VALUES='--set nodeSelector.KEY=VALUE'",
			}
		}
		message = j.failedCreate(s, d)
	}
	if message == "" {
		return nil
	}
	st := &stuck{what: p.String(), why: "no pod can be made: " + message}
	switch {
	case strings.Contains(message, "exceeded quota"):
		st.mend = "raise the ResourceQuota of the namespace: kubectl describe quota -n NAMESPACE"
	case strings.Contains(message, "violates PodSecurity"):
		st.mend = "label the namespace: kubectl label namespace NAMESPACE " +
			"pod-security.kubernetes.io/enforce=privileged --overwrite"
	case strings.Contains(message, "denied the request"):
		st.mend = "the webhook that is named decides"
	case !j.lasts(p.String()+" "+message, schedulingIn):
		// A service account that is made in the same moment, such as that.
		return nil
	}
	return st
}

// selector is labels as kubectl takes them.
func selector(labels map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if k != corev1.LabelOSStable || len(labels) == 1 { // Which every node has, and is of Linux if any.
			all = append(all, k+"="+labels[k])
		}
	}
	return strings.Join(all, ",")
}

// replicaFailure is why a ReplicaSet cannot make pods.
func replicaFailure(r *appsv1.ReplicaSet) string {
	if r == nil {
		return ""
	}
	for _, c := range r.Status.Conditions {
		if c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == corev1.ConditionTrue {
			return c.Message
		}
	}
	return ""
}

// failedCreate is why a DaemonSet cannot make pods: it tells that in Events alone.
func (j *judge) failedCreate(s *state, d *appsv1.DaemonSet) string {
	if d.Status.CurrentNumberScheduled >= d.Status.DesiredNumberScheduled {
		return ""
	}
	for _, e := range s.eventsOf(d.UID) {
		if seen, old := j.seen[e.UID]; e.Reason == "FailedCreate" && (!old || e.Count > seen) {
			return e.Message
		}
	}
	return ""
}

// podVerdict is what a pod is stuck at.
func (j *judge) podVerdict(s *state, p part, pod *corev1.Pod) *stuck {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse &&
			c.Reason == corev1.PodReasonUnschedulable {
			if scalesUp(s.eventsOf(pod.UID)) || !j.lasts(string(pod.UID)+" unschedulable", schedulingIn) {
				return nil
			}
			return &stuck{
				what: p.String(), why: fmt.Sprintf("no node takes the pod %s: %s", pod.Name, c.Message),
				mend: "free or add what it names on the nodes; the chart's values set what pods ask for " +
					"(deploy/README.md)",
			}
		}
	}
	for i := range pod.Status.ContainerStatuses {
		if st := j.containerVerdict(s, pod, &pod.Status.ContainerStatuses[i]); st != nil {
			st.what = fmt.Sprintf("%s, pod %s on %s", p, pod.Name, pod.Spec.NodeName)
			return st
		}
	}
	return nil
}

// scalesUp reports whether a cluster autoscaler makes a node for a pod.
func scalesUp(events []*corev1.Event) bool {
	return slices.ContainsFunc(events, func(e *corev1.Event) bool {
		return e.Reason == "TriggeredScaleUp" ||
			e.Reason == "Nominated"
	})
}

func (j *judge) containerVerdict(s *state, pod *corev1.Pod, c *corev1.ContainerStatus) *stuck {
	w := c.State.Waiting
	if w == nil {
		return nil
	}
	switch w.Reason {
	case "InvalidImageName":
		return &stuck{
			why:  fmt.Sprintf("%q is not the name of an image", imageOf(pod, c)),
			mend: "make deploy IMAGE=REGISTRY/NAME:TAG",
		}
	case "ErrImageNeverPull":
		return &stuck{
			why: fmt.Sprintf("the node does not have the image %q, and imagePullPolicy is Never", imageOf(pod, c)),
			mend: "import the image on the nodes, or let them pull it: make deploy VALUES='--set " +
				"imagePullPolicy=IfNotPresent'",
		}
	case "ErrImagePull", "ImagePullBackOff":
		if final(w.Message) || pulls(s.eventsOf(pod.UID)) >= pullTries {
			return &stuck{
				why: fmt.Sprintf("the image %q cannot be pulled: %s", imageOf(pod, c),
					cause(w.Message, s.eventsOf(pod.UID))),
				mend: "name an image that the nodes can pull: make deploy IMAGE=REGISTRY/NAME:TAG; make image builds " +
					"it, " +
					"and imagePullSecrets is for a registry that asks who pulls (deploy/README.md)",
			}
		}
	case "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
		if j.lasts(string(pod.UID)+" "+w.Reason, briefly) {
			return &stuck{
				why:  fmt.Sprintf("the container %s cannot be made: %s", c.Name, w.Message),
				mend: "what the message names",
			}
		}
	case "CrashLoopBackOff":
		if c.RestartCount >= crashes {
			return &stuck{
				why: fmt.Sprintf("the container %s ended %d times%s", c.Name, c.RestartCount, ending(c)), pod: pod.Name,
				container: c.Name,
				mend:      "what its log says",
			}
		}
	}
	return nil
}

// imageOf is the image of a container as its pod names it.
func imageOf(pod *corev1.Pod, c *corev1.ContainerStatus) string {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == c.Name {
			return pod.Spec.Containers[i].Image
		}
	}
	return c.Image
}

// ending tells how a container ended last.
func ending(c *corev1.ContainerStatus) string {
	t := c.LastTerminationState.Terminated
	if t == nil {
		return ""
	}
	if t.Reason != "" && t.Reason != "Error" && t.Reason != "Completed" {
		return ", the last time by " + t.Reason
	}
	return fmt.Sprintf(", the last time with exit code %d", t.ExitCode)
}

// final reports whether a registry's answer stays the same.
func final(message string) bool {
	message = strings.ToLower(message)
	for _, s := range []string{
		": not found", "notfound", "manifest unknown", "denied", "unauthorized",
		"no match for platform",
	} {
		if strings.Contains(message, s) {
			return true
		}
	}
	return false
}

// pulls is how often kubelet could not pull a pod's image.
func pulls(events []*corev1.Event) int32 {
	var n int32
	for _, e := range events {
		if e.Reason == "Failed" && strings.HasPrefix(e.Message, "Failed to pull image") {
			n += max(e.Count, 1)
		}
	}
	return n
}

// cause is the registry's part of a message: that of the event, where the container's status says only that kubelet
// waits.
func cause(message string, events []*corev1.Event) string {
	for _, e := range events {
		if e.Reason == "Failed" && strings.HasPrefix(e.Message, "Failed to pull image") {
			message = e.Message
		}
	}
	if i := strings.Index(message, "failed to"); i >= 0 {
		message = message[i:]
	}
	return message
}
