package reconcile

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/masters"
	"millrace.io/millrace/controller/objects"
)

// podsOf reads a pod a word, such as "m0 m1! w0? w1-". A "!" is one of an old spec, "?" one that is not ready, "-" one
// that is being deleted.
func podsOf(words string) []corev1.Pod {
	var pods []corev1.Pod
	for word := range strings.FieldsSeq(words) {
		role, set := objects.RoleMaster, "master"
		if word[0] == 'w' {
			role, set = objects.RoleWorker, "worker"
		}
		pod := newPod(role, int(word[1]-'0'))
		pod.Labels["controller-revision-hash"] = set + "-new"
		if strings.Contains(word, "!") {
			pod.Labels["controller-revision-hash"] = set + "-old"
		}
		ready := statusOf(!strings.Contains(word, "?"))
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
		if strings.Contains(word, "-") {
			pod.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
		}
		pods = append(pods, *pod)
	}
	return pods
}

// TestRollout replaces one pod at a time, while all others serve: standby masters, workers, and the leading master
// last. So a new spec moves the leader once. One that does not serve is replaced whatever else is.
func TestRollout(t *testing.T) {
	for _, tc := range []struct{ name, pods, leader, next string }{
		{"all are new", "m0 m1 m2 w0 w1", "hbase-master-0", ""},
		{"all are old", "m0! m1! m2! w0! w1!", "hbase-master-0", "hbase-master-1"},
		{"a standby is left", "m0! m1 m2! w0! w1!", "hbase-master-0", "hbase-master-2"},
		{"workers are left", "m0! m1 m2 w0! w1!", "hbase-master-0", "hbase-worker-0"},
		{"one worker is left", "m0! m1 m2 w0 w1!", "hbase-master-0", "hbase-worker-1"},
		{"the leader is left", "m0! m1 m2 w0 w1", "hbase-master-0", "hbase-master-0"},
		{"none is known to lead", "m0! m1! m2 w0! w1", "", "hbase-worker-0"},
		{"one is on its way out", "m0! m1- m2! w0! w1!", "hbase-master-0", ""},
		{"one is on its way in", "m0! m1 m2! w0!", "hbase-master-0", ""},
		{"a new one does not serve", "m0! m1? m2! w0! w1!", "hbase-master-0", ""},
		{"an old one does not serve", "m0! m1 m2! w0! w1!?", "hbase-master-0", "hbase-worker-1"},
		{"old ones do not serve", "m0!? m1! m2! w0! w1!?", "hbase-master-1", "hbase-master-0"},
	} {
		w := &world{
			masters: &appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{Replicas: new(int32(3))}},
			workers: &appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{Replicas: new(int32(2))}},
			pods:    podsOf(tc.pods),
		}
		revisions := map[string]string{objects.RoleMaster: "master-new", objects.RoleWorker: "worker-new"}
		next := ""
		if pod := nextToRoll(w, revisions, tc.leader); pod != nil {
			next = pod.Name
		}
		if next != tc.next {
			t.Errorf("%s: %q is next, want %q", tc.name, next, tc.next)
		}
	}
}

// TestRolloutWaitsForTheSet replaces no pod before the StatefulSets know the new spec, and says which it replaces.
func TestRolloutWaitsForTheSet(t *testing.T) {
	d, o := newDataset("https://mirror.example.org/a/")
	o.Spec.Replicas = 1
	g := newRig(t, d, o)
	g.settle()
	worker := func() bool { return g.there(&corev1.Pod{}, key.Namespace, "hbase-worker-0") }
	set := func(name, revision string, generation, observed int64) {
		s := &appsv1.StatefulSet{}
		g.there(s, key.Namespace, name)
		s.Generation = generation
		g.must(g.Update(t.Context(), s))
		s.Status.ObservedGeneration, s.Status.UpdateRevision = observed, revision
		g.must(g.Status().Update(t.Context(), s))
	}
	set("hbase-master", "master-new", 1, 1)
	set("hbase-worker", "worker-new", 2, 1)
	for _, pod := range podsOf("m0 w0!") {
		status := pod.Status
		g.must(g.Create(t.Context(), &pod))
		pod.Status = status
		g.must(g.Status().Update(t.Context(), &pod))
	}
	if g.look(); !worker() {
		t.Error("a pod is replaced although the set does not know the new spec")
	}
	set("hbase-worker", "worker-new", 2, 2)
	if g.look(); worker() {
		t.Error("no pod is replaced")
	}
	g.says("Progressing", "=True Replacing: the pod hbase-worker-0 ")
	g.look()
	g.says("Progressing", "=False UpToDate: ")
}

// TestDuty marks a pod by what the masters say, and leaves it as it is where they say nothing.
func TestDuty(t *testing.T) {
	addresses := []string{"m0:1", "m1:1"}
	roles := func(words ...rpc.Role) map[string]rpc.Role {
		all := map[string]rpc.Role{}
		for i, role := range words {
			if role != "" {
				all[addresses[i]] = role
			}
		}
		return all
	}
	worker := newPod(objects.RoleWorker, 0)
	at := []masters.Worker{{Address: worker.Status.PodIP + ":29999"}}
	for name, tc := range map[string]struct {
		pod           *corev1.Pod
		state         masters.State
		serves, known bool
	}{
		"a leader": {
			newPod(objects.RoleMaster, 0), masters.State{Asked: true, Roles: roles(rpc.Leading, rpc.Standby)}, true, true,
		},
		"a standby of one": {
			newPod(objects.RoleMaster, 1), masters.State{Asked: true, Roles: roles(rpc.Leading, rpc.Standby)}, true, true,
		},
		"a standby of none": {
			newPod(objects.RoleMaster, 1),
			masters.State{Asked: true, Err: "none", Roles: roles("", rpc.Standby)},
			false,
			false,
		},
		"one that does not answer": {
			newPod(objects.RoleMaster, 1), masters.State{Asked: true, Roles: roles(rpc.Leading)}, false, true,
		},
		"one of two that lead": {
			newPod(objects.RoleMaster, 0),
			masters.State{Asked: true, Err: "two", Disagree: true, Roles: roles(rpc.Leading, rpc.Leading)},
			false, true,
		},
		"one beyond the spec": {
			newPod(objects.RoleMaster, 2), masters.State{Asked: true, Roles: roles(rpc.Leading)}, false, false,
		},
		"a master not yet asked": {newPod(objects.RoleMaster, 0), masters.State{}, false, false},
		"a worker":               {worker, masters.State{Asked: true, Workers: at}, true, true},
		"another's worker":       {newPod(objects.RoleWorker, 1), masters.State{Asked: true, Workers: at}, false, true},
		"a worker, no leader":    {worker, masters.State{Asked: true, Err: "none", Workers: at}, false, false},
		"a pod of no role":       {&corev1.Pod{}, masters.State{Asked: true}, false, false},
	} {
		if _, serves, known := duty(tc.pod, addresses, tc.state); known != tc.known || known && serves != tc.serves {
			t.Errorf("%s: serves %v, known %v", name, serves, known)
		}
	}
}

// TestDrainOf keeps workers that are to go for as long as others are copying what only they have, and no longer.
func TestDrainOf(t *testing.T) {
	ips := []string{newPod(objects.RoleWorker, 2).Status.PodIP}
	holding := []masters.Worker{{Address: ips[0] + ":29999", Used: 5}}
	over := func(d masters.Drain) masters.State {
		d.Leaving, d.Done = ips, true
		return masters.State{Asked: true, Workers: holding, Drain: d}
	}
	for name, tc := range map[string]struct {
		now, then int32
		state     masters.State
		began     time.Duration
		keeps     int32
		reason    string
	}{
		"as many":                 {3, 3, masters.State{}, 0, 0, ""},
		"more":                    {3, 4, masters.State{}, 0, 0, ""},
		"they hold something":     {3, 2, masters.State{Asked: true, Workers: holding}, 0, 3, "ScalingDown"},
		"it is not known":         {3, 2, masters.State{}, 0, 3, "ScalingDown"},
		"the leader is away":      {3, 2, masters.State{Asked: true, Err: "none"}, 0, 3, "ScalingDown"},
		"they hold nothing":       {3, 2, masters.State{Asked: true}, 0, 0, "Drained"},
		"none is left":            {3, 0, masters.State{Asked: true, Workers: holding}, 0, 0, "NoWorkers"},
		"all is copied":           {3, 2, over(masters.Drain{Only: 2, Moved: 2}), 0, 0, "Drained"},
		"not all is copied":       {3, 2, over(masters.Drain{Only: 2, Moved: 1, Why: "full"}), 0, 0, "Incomplete"},
		"copied, and not dropped": {3, 2, over(masters.Drain{Only: 2, Moved: 2, Why: "locked"}), 0, 0, "Incomplete"},
		"another drain is over": {
			3, 2,
			masters.State{Asked: true, Workers: holding, Drain: masters.Drain{Leaving: []string{"x"}, Done: true}},
			0,
			3, "ScalingDown",
		},
		"it takes its time": {
			3, 2, masters.State{Asked: true, Workers: holding}, masters.DrainPatience - time.Second, 3, "ScalingDown",
		},
		"it takes longer than it may": {
			3, 2, masters.State{Asked: true, Workers: holding}, masters.DrainPatience + time.Second, 0, "DeadlineExceeded",
		},
	} {
		now := time.Unix(1e9, 0)
		w := &world{
			workers:  &appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{Replicas: &tc.now}},
			runtime:  &v1alpha1.AlluxioRuntime{Spec: v1alpha1.AlluxioRuntimeSpec{Replicas: tc.then}},
			pods:     podsOf("w0 w1 w2"),
			clusters: tc.state,
		}
		if tc.began > 0 {
			w.runtime.Status.Conditions = []v1alpha1.Condition{{
				Type: v1alpha1.Draining, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-tc.began)),
			}}
		}
		d := drainOf(w, now)
		reason := ""
		if d != nil {
			reason = d.reason
		}
		if d.keeps() != tc.keeps || reason != tc.reason || (len(d.hosts()) > 0) != (tc.keeps > 0) {
			t.Errorf("%s: %q, keeps %d, drains %v", name, reason, d.keeps(), d.hosts())
		}
	}
}
