package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// The kinds of workloads that are waited for.
const (
	deployment = "Deployment"
	daemonSet  = "DaemonSet"
)

// part is a workload that is waited for.
type part struct{ kind, name string }

// String is how kubectl calls it.
func (p part) String() string { return strings.ToLower(p.kind) + "/" + p.name }

// partsOf are the workloads of a manifest, in their order.
func partsOf(manifest string) ([]part, error) {
	var parts []part
	for d := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifest), 4096); ; {
		var o metav1.PartialObjectMetadata
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if o.Kind == deployment || o.Kind == daemonSet {
			parts = append(parts, part{o.Kind, o.Name})
		}
	}
	if len(parts) == 0 {
		return nil, errors.New("it has no Deployment and no DaemonSet")
	}
	return parts, nil
}

// kinds are what a state has, as kubectl is asked for them.
const kinds = "deployments,daemonsets,replicasets,controllerrevisions,pods,events"

// state is what the API server says of a namespace.
type state struct {
	deployments map[string]*appsv1.Deployment
	daemonSets  map[string]*appsv1.DaemonSet
	replicaSets []*appsv1.ReplicaSet
	revisions   []*appsv1.ControllerRevision
	pods        []*corev1.Pod
	events      []*corev1.Event
}

// parseState reads a list of objects.
func parseState(text string) (*state, error) {
	var list struct{ Items []json.RawMessage }
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("what kubectl get prints: %w", err)
	}
	s := &state{deployments: map[string]*appsv1.Deployment{}, daemonSets: map[string]*appsv1.DaemonSet{}}
	for _, item := range list.Items {
		if err := s.add(item); err != nil {
			return nil, fmt.Errorf("what kubectl get prints: %w", err)
		}
	}
	return s, nil
}

func (s *state) add(item json.RawMessage) error {
	var about metav1.TypeMeta
	if err := json.Unmarshal(item, &about); err != nil {
		return err
	}
	switch about.Kind {
	case deployment:
		o := &appsv1.Deployment{}
		err := json.Unmarshal(item, o)
		s.deployments[o.Name] = o
		return err
	case daemonSet:
		o := &appsv1.DaemonSet{}
		err := json.Unmarshal(item, o)
		s.daemonSets[o.Name] = o
		return err
	case "ReplicaSet":
		s.replicaSets = append(s.replicaSets, &appsv1.ReplicaSet{})
		return json.Unmarshal(item, s.replicaSets[len(s.replicaSets)-1])
	case "ControllerRevision":
		s.revisions = append(s.revisions, &appsv1.ControllerRevision{})
		return json.Unmarshal(item, s.revisions[len(s.revisions)-1])
	case "Pod":
		s.pods = append(s.pods, &corev1.Pod{})
		return json.Unmarshal(item, s.pods[len(s.pods)-1])
	case "Event":
		s.events = append(s.events, &corev1.Event{})
		return json.Unmarshal(item, s.events[len(s.events)-1])
	}
	return nil
}

// eventsOf are those about an object.
func (s *state) eventsOf(id types.UID) []*corev1.Event {
	var found []*corev1.Event
	for _, e := range s.events {
		if e.InvolvedObject.UID == id {
			found = append(found, e)
		}
	}
	return found
}

// current is the ReplicaSet of a Deployment's present template, nil before there is one.
func (s *state) current(d *appsv1.Deployment) *appsv1.ReplicaSet {
	const revision = "deployment.kubernetes.io/revision"
	for _, r := range s.replicaSets {
		if metav1.IsControlledBy(r, d) && r.Annotations[revision] == d.Annotations[revision] {
			return r
		}
	}
	return nil
}

// podsOf are the pods of a workload's present template: those of an earlier one go, whatever they wait for.
func (s *state) podsOf(p part) []*corev1.Pod {
	var found []*corev1.Pod
	switch p.kind {
	case deployment:
		if d := s.deployments[p.name]; d != nil && d.Status.ObservedGeneration >= d.Generation {
			if r := s.current(d); r != nil {
				for _, pod := range s.pods {
					if metav1.IsControlledBy(pod, r) {
						found = append(found, pod)
					}
				}
			}
		}
	case daemonSet:
		d := s.daemonSets[p.name]
		if d == nil || d.Status.ObservedGeneration < d.Generation {
			return nil
		}
		hash := s.revisionOf(d)
		for _, pod := range s.pods {
			if metav1.IsControlledBy(pod, d) && pod.Labels[appsv1.ControllerRevisionHashLabelKey] == hash {
				found = append(found, pod)
			}
		}
	}
	return found
}

// revisionOf is the hash of a DaemonSet's present template.
func (s *state) revisionOf(d *appsv1.DaemonSet) string {
	var newest *appsv1.ControllerRevision
	for _, r := range s.revisions {
		if metav1.IsControlledBy(r, d) && (newest == nil || r.Revision > newest.Revision) {
			newest = r
		}
	}
	if newest == nil {
		return ""
	}
	return newest.Labels[appsv1.ControllerRevisionHashLabelKey]
}

// ready tells how many pods of the present template are ready, how many there are to be, and whether that is all.
func (s *state) ready(p part) (ready, want int32, done bool) {
	switch p.kind {
	case deployment:
		d := s.deployments[p.name]
		if d == nil || d.Spec.Replicas == nil {
			return 0, 1, false
		}
		want = *d.Spec.Replicas
		if d.Status.ObservedGeneration < d.Generation {
			return 0, want, false
		}
		ready = min(d.Status.UpdatedReplicas, d.Status.AvailableReplicas)
		return ready, want, ready == want && d.Status.Replicas == want
	case daemonSet:
		d := s.daemonSets[p.name]
		if d == nil || d.Status.ObservedGeneration < d.Generation {
			return 0, 1, false
		}
		want, ready = d.Status.DesiredNumberScheduled, min(d.Status.UpdatedNumberScheduled, d.Status.NumberAvailable)
		return ready, want, ready == want && want > 0
	}
	return 0, 0, true
}
