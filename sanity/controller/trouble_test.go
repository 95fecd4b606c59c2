package controller_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller"
	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/trouble"
	"millrace.io/millrace/sanity/kube"
	"millrace.io/millrace/sanity/pace"
)

// troubled is a Dataset whose pods the test gives the statuses that a scheduler and a kubelet would.
type troubled struct {
	t  *testing.T
	c  client.Client
	ns string
}

// newTroubled makes the walkthrough's Dataset in a namespace, served by a controller that has the generated rights and
// no others.
func newTroubled(t *testing.T, s *kube.Server, c client.Client, ns string) *troubled {
	t.Helper()
	start(t, s, ns, func(config *controller.Config) {
		api, err := s.Config("controller")
		must(t, err)
		config.API = api
	})
	create(t, c, ns, walkthrough)
	return &troubled{t, c, ns}
}

func (r *troubled) pod(name string) *corev1.Pod {
	r.t.Helper()
	pod := &corev1.Pod{}
	eventually(r.t, "the pod "+name, func() string {
		if err := r.c.Get(r.t.Context(), client.ObjectKey{Namespace: r.ns, Name: name}, pod); err != nil {
			return err.Error()
		}
		return ""
	})
	return pod
}

// bind gives a pod a node, as the scheduler does.
func (r *troubled) bind(name string) {
	r.t.Helper()
	must(r.t, r.c.SubResource("binding").Create(r.t.Context(), r.pod(name),
		&corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "node1"}}))
}

// status writes a pod's status. The controller may write to it meanwhile.
func (r *troubled) status(name string, change func(*corev1.PodStatus)) {
	r.t.Helper()
	eventually(r.t, "the status of "+name+" is written", func() string {
		pod := r.pod(name)
		change(&pod.Status)
		if err := r.c.Status().Update(r.t.Context(), pod); err != nil {
			return err.Error()
		}
		return ""
	})
}

// container writes the state of a pod's only container.
func (r *troubled) container(pod, name string, phase corev1.PodPhase, state, last corev1.ContainerState) {
	r.t.Helper()
	r.status(pod, func(s *corev1.PodStatus) {
		s.Phase = phase
		s.ContainerStatuses = []corev1.ContainerStatus{{
			Name: name, Image: "alluxio/alluxio:9.9", State: state,
			LastTerminationState: last,
		}}
	})
}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// warns writes an Event as kubelet does.
func (r *troubled) warns(about *corev1.Pod, reason, message string) {
	r.t.Helper()
	now := metav1.Now()
	must(r.t, r.c.Create(r.t.Context(), &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.ns, GenerateName: about.Name + "."},
		InvolvedObject: corev1.ObjectReference{
			Kind: "Pod", APIVersion: "v1", Namespace: r.ns, Name: about.Name,
			UID: about.UID,
		},
		Type: corev1.EventTypeWarning, Reason: reason, Message: message,
		Source:         corev1.EventSource{Component: "kubelet"},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}))
}

// is waits until the Dataset and the runtime's condition of that kind have the reason and say all the words, with an
// Event on both, and checks how long that took.
func (r *troubled) is(kind, reason string, words ...string) {
	r.t.Helper()
	begun := time.Now()
	eventually(r.t, "the reason is "+reason, func() string {
		d, a := dataset(r.t, r.c, r.ns, "hbase"), alluxio(r.t, r.c, r.ns, "hbase")
		for _, line := range []string{
			condition(d.Status.Conditions, v1alpha1.Ready),
			condition(a.Status.Conditions, kind),
		} {
			if !strings.Contains(line, "=False "+reason+" ") {
				return line
			}
			for _, w := range words {
				if !strings.Contains(line, w) {
					return fmt.Sprintf("%q does not say %q", line, w)
				}
			}
		}
		if d.Status.Phase != v1alpha1.NotBound {
			return "the phase is " + string(d.Status.Phase)
		}
		for _, kind := range []string{"Dataset", "AlluxioRuntime"} {
			if events := r.events(kind, reason); len(events) == 0 || events[0].Type != corev1.EventTypeWarning {
				return "no such warning is about the " + kind
			}
		}
		return ""
	})
	pace.Within(r.t, "telling "+reason, time.Since(begun), 10*time.Second)
}

// over waits until no trouble is told any more, and that it has been told so.
func (r *troubled) over(reason string) {
	r.t.Helper()
	eventually(r.t, reason+" is over", func() string {
		d := dataset(r.t, r.c, r.ns, "hbase")
		for _, c := range d.Status.Conditions {
			if trouble.Is(c.Reason) {
				return c.Reason + " " + c.Message
			}
		}
		for _, kind := range []string{"Dataset", "AlluxioRuntime"} {
			told := false
			for _, e := range r.events(kind, "Mended") {
				told = told || e.Type == corev1.EventTypeNormal && strings.HasPrefix(e.Message, reason+" is over")
			}
			if !told {
				return "nothing tells so of the " + kind
			}
		}
		return ""
	})
}

// events are those about the Dataset or its runtime that have a reason.
func (r *troubled) events(kind, reason string) []corev1.Event {
	r.t.Helper()
	list := &corev1.EventList{}
	must(r.t, r.c.List(r.t.Context(), list, client.InNamespace(r.ns),
		client.MatchingFields{"involvedObject.kind": kind, "reason": reason}))
	return list.Items
}

// once checks that a change was told once of the Dataset, and once of each of some parts of the runtime, however often
// it was looked at.
func (r *troubled) once(reason string, parts int) {
	r.t.Helper()
	for kind, want := range map[string]int{"Dataset": 1, "AlluxioRuntime": parts} {
		times := 0
		for _, e := range r.events(kind, reason) {
			times++
			if e.Series != nil {
				times += int(e.Series.Count) - 1
			}
		}
		if times != want {
			r.t.Errorf("%s is told %d times of the %s, want %d", reason, times, kind, want)
		}
	}
}

// TestTroubleIsTold gives pods the statuses of one trouble after the other.
func TestTroubleIsTold(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	grant(t, c, "controller", "role.yaml")
	r := newTroubled(t, s, c, namespace(t, c))

	const full = "0/2 nodes are available: 2 Insufficient memory."
	r.status("hbase-worker-0", func(s *corev1.PodStatus) {
		s.Conditions = append(s.Conditions, corev1.PodCondition{
			Type:   corev1.PodScheduled,
			Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: full,
		})
	})
	r.is(v1alpha1.WorkersReady, trouble.Unschedulable, "hbase-worker-0", full)
	r.bind("hbase-worker-0")
	r.status("hbase-worker-0", func(s *corev1.PodStatus) { s.Phase = corev1.PodRunning })
	r.over(trouble.Unschedulable)

	const absent = `failed to resolve reference "docker.io/alluxio/alluxio:9.9": not found`
	r.bind("hbase-master-0")
	r.container("hbase-master-0", "alluxio-master", corev1.PodPending, waiting("ErrImagePull", absent),
		corev1.ContainerState{})
	r.is(v1alpha1.MastersReady, trouble.ImagePull, "hbase-master-0 on the node node1", "alluxio-master",
		"alluxio/alluxio:9.9", absent)
	before := dataset(t, c, r.ns, "hbase").Status
	r.container("hbase-master-0", "alluxio-master", corev1.PodPending,
		waiting("ImagePullBackOff", `Back-off pulling image "alluxio/alluxio:9.9": ErrImagePull: `+absent),
		corev1.ContainerState{})
	// The next trouble is of another part: when it is told, the pause of the pull has been seen.
	r.warnsOfMount("hbase-worker-1")
	eventually(t, "the runtime tells of the worker", func() string {
		line := condition(alluxio(t, c, r.ns, "hbase").Status.Conditions, v1alpha1.WorkersReady)
		if strings.Contains(line, trouble.VolumeMount) {
			return ""
		}
		return line
	})
	if after := dataset(t, c, r.ns, "hbase").Status; !equality.Semantic.DeepEqual(before, after) {
		t.Errorf("a pause between two pulls changed the status from\n%+v\nto\n%+v", before, after)
	}
	r.once(trouble.ImagePull, 1)

	end := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: 1, Reason: "Error",
		Message: "begin\nInvalid property alluxio.nothing\n",
	}}
	r.container("hbase-master-0", "alluxio-master", corev1.PodRunning, waiting("CrashLoopBackOff", "back-off 10s"), end)
	r.is(v1alpha1.MastersReady, trouble.Crash, "hbase-master-0", "exit code 1", "Invalid property alluxio.nothing")
	r.container("hbase-master-0", "alluxio-master", corev1.PodRunning,
		corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, corev1.ContainerState{})
	r.is(v1alpha1.WorkersReady, trouble.VolumeMount, "hbase-worker-1 on the node node1", `configmap "absent" not found`)
	r.container("hbase-worker-1", "alluxio-worker", corev1.PodRunning,
		corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, corev1.ContainerState{})
	r.over(trouble.VolumeMount)
	for _, reason := range []string{trouble.Unschedulable, trouble.ImagePull, trouble.Crash, trouble.VolumeMount} {
		r.once(reason, 1)
	}
}

// warnsOfMount has a pod wait for a volume that cannot be mounted.
func (r *troubled) warnsOfMount(pod string) {
	r.t.Helper()
	r.bind(pod)
	r.container(pod, "alluxio-worker", corev1.PodPending, waiting("ContainerCreating", ""), corev1.ContainerState{})
	r.warns(r.pod(pod), "FailedMount", `MountVolume.SetUp failed for volume "hdfs" : configmap "absent" not found`)
}

// TestQuotaIsTold has a real ResourceQuota leave no room for pods.
func TestQuotaIsTold(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	grant(t, c, "controller", "role.yaml")
	ns := namespace(t, c)
	none := corev1.ResourceList{corev1.ResourcePods: quantity("0")}
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "small"},
		Spec:       corev1.ResourceQuotaSpec{Hard: none},
	}
	must(t, c.Create(t.Context(), quota))
	// The controller of quotas, which does not run here, would take it over like this.
	quota.Status = corev1.ResourceQuotaStatus{Hard: none, Used: none}
	must(t, c.Status().Update(t.Context(), quota))
	r := newTroubled(t, s, c, ns)
	r.is(v1alpha1.MastersReady, trouble.Quota, "the StatefulSet hbase-master", "exceeded quota: small")
	r.is(v1alpha1.WorkersReady, trouble.Quota, "exceeded quota: small")
	must(t, c.Delete(t.Context(), quota))
	r.over(trouble.Quota)
	r.once(trouble.Quota, 2)
}

// TestPodSecurityIsTold has a namespace refuse pods that write into directories of nodes.
func TestPodSecurityIsTold(t *testing.T) {
	t.Parallel()
	s, c := server(t)
	grant(t, c, "controller", "role.yaml")
	ns := namespace(t, c)
	must(t, c.Patch(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, mergePatch(map[string]any{
		"metadata": map[string]any{"labels": map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}},
	})))
	r := newTroubled(t, s, c, ns)
	r.is(v1alpha1.MastersReady, trouble.PodSecurity, "the StatefulSet hbase-master", `violates PodSecurity "restricted`)
}
